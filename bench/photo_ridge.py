"""Ridge regression on the photo model's own eyes: what its features hold, and what a projector keeps of them.

    python bench/photo_ridge.py OASIS/ratings.csv

PLCC, SRCC and MAE against people, on the val split, trained on train; and out of fold over all, five folds by theme
(the file name before its number).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aesr1.images.load import open_image
from aesr1.metrics import mae, plcc, srcc
from aesr1.model.image_classes import load_classifier
from photo_table import FOLDS, read_table

PENALTIES = (100, 300, 1_000, 3_000)
PENALTY = 1_000
"""With which ridge stands beside the model (bench/photo_folds.py): the best of these on all features."""
BATCH = 4
WIDTH = 192
"""Of the photo model's projector."""

Features = NDArray[np.float64]


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


def standardised(train: Features, x: Features) -> Features:
    """x (m, channels) by mean and spread of train (n, channels)."""
    return (x - train.mean(0)) / (train.std(0) + 1e-3)


def random_sums(train: Features, x: Features) -> Features:
    """(m, WIDTH): what a first layer of the projector at random would keep."""
    return standardised(train, x) @ np.random.default_rng(0).normal(size=(x.shape[1], WIDTH)) / x.shape[1] ** 0.5


def components(train: Features, x: Features) -> Features:
    """(m, WIDTH): the principal components in which the pictures of train differ, as the projector begins."""
    return standardised(train, x) @ np.linalg.svd(standardised(train, train), full_matrices=False)[2][:WIDTH].T


KEPT: dict[str, Callable[[Features, Features], Features]] = {
    "all features": standardised,
    f"{WIDTH} random sums": random_sums,
    f"{WIDTH} components": components,
}


def main() -> None:
    """The command line."""
    table = read_table(Path(sys.argv[1]))
    y, fold, train = table.human, table.fold, table.of("split") == "train"
    features = mean_features(table.paths)

    def predicted(of: NDArray[np.bool_], keep: Callable[[Features, Features], Features], penalty: float) -> Features:
        x = keep(features[~of], features)
        return ridge(x[~of], y[~of], x[of], penalty)

    print("| features | penalty | on | PLCC | SRCC | MAE |\n|---|---|---|---|---|---|")
    for name, keep in KEPT.items():
        for penalty in PENALTIES:
            held_out = np.zeros(len(y))
            for number in range(FOLDS):
                held_out[fold == number] = predicted(fold == number, keep, penalty)
            for on, scores, human in (
                ("val", predicted(~train, keep, penalty), y[~train]),
                ("out of fold", held_out, y),
            ):
                values = " | ".join(f"{measure(scores, human):.3f}" for measure in (plcc, srcc, mae))
                print(f"| {name} | {penalty:,} | {on} | {values} |", flush=True)


if __name__ == "__main__":
    main()
