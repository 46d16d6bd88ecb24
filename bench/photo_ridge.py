"""Ridge regression on the photo model's own eyes: what its features hold. PLCC, SRCC and MAE against people.

    python bench/photo_ridge.py OASIS/ratings.csv

On the val split, trained on train; and out of fold over all, five folds by theme (the file name before its number).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aesr1.images.load import open_image
from aesr1.metrics import mae, plcc, srcc
from aesr1.model.image_classes import load_classifier
from photo_table import FOLDS, read_table

PENALTIES = (300, 1_000, 3_000)
BATCH = 4


def mean_features(images: Sequence[str]) -> NDArray[np.float64]:
    """(n, channels): the mean over the tower's map."""
    classifier = load_classifier()
    starts = range(0, len(images), BATCH)
    return np.concatenate(
        [classifier.mean_features([open_image(image) for image in images[i : i + BATCH]]) for i in starts]
    )


def ridge(
    x: NDArray[np.float64], y: NDArray[np.float64], of: NDArray[np.float64], penalty: float
) -> NDArray[np.float64]:
    """Predictions for `of`; features are standardised by `x`."""
    centre, spread, mean = x.mean(0), x.std(0) + 1e-3, y.mean()
    x, of = (x - centre) / spread, (of - centre) / spread
    predicted: NDArray[np.float64] = of @ (x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y - mean)) + mean
    return predicted


def main() -> None:
    """The command line."""
    table = read_table(Path(sys.argv[1]))
    y, fold, train = table.human, table.fold, table.of("split") == "train"
    x = mean_features(table.paths)
    print("| penalty | on | PLCC | SRCC | MAE |\n|---|---|---|---|---|")
    for penalty in PENALTIES:
        held_out = np.zeros(len(y))
        for number in range(FOLDS):
            held_out[fold == number] = ridge(x[fold != number], y[fold != number], x[fold == number], penalty)
        val = ridge(x[train], y[train], x[~train], penalty)
        for name, predicted, human in (("val", val, y[~train]), ("out of fold", held_out, y)):
            values = " | ".join(f"{measure(predicted, human):.3f}" for measure in (plcc, srcc, mae))
            print(f"| {penalty:,} | {name} | {values} |")


if __name__ == "__main__":
    main()
