"""Baselines that need no model of ours: the mean of train, and regressions on measures and on ImageNet's features."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from aesr1.contract import MAX_PIXELS
from aesr1.errors import AesError, install
from aesr1.evaluation.compare import by_domain
from aesr1.images.measure import as_vector, measure
from aesr1.images.prefetch import prefetch_images
from aesr1.metrics import Column, Grid
from aesr1.model.image_classes import load_classifier
from aesr1.model.predict import Origin, empty_row
from aesr1.progress import progress_bar
from aesr1.records import Prediction, Rating

BASELINES = ("mean of train", "ridge on measures", "boosting on measures", "ridge on photo features")
MOST_TRAINED = 5_000
"""So many pictures of train, drawn with a seed, are enough for regressions on so few numbers."""
BATCH = 8
AHEAD = 64
"""Pictures that go through the tower at once, and that are opened early."""


def baseline_predictions(
    train: Sequence[Rating], held_out: Sequence[Rating], pool: Executor | None, *, seed: int = 0
) -> dict[str, list[Prediction]]:
    """The predictions of each baseline for each held-out picture; each data set is learnt from its own split train.

    AesError where a data set has fewer than two pictures in train, two data sets rate the same picture, or
    scikit-learn is not installed.
    """
    _require_sklearn()
    sets = {domain: _drawn(rows, seed) for domain, rows in by_domain(train).items()} if train else {}
    tests = by_domain(held_out)
    for domain in tests:
        _require_two(domain, sets.get(domain, ()))
    if len({row.image for row in held_out}) < len(held_out):
        raise AesError(
            "two data sets rate the same picture, and each has baselines of its own",
            fix="evaluate them one at a time, with --domain",
        )
    images = [row.image for rows in (*(sets[domain] for domain in tests), *tests.values()) for row in rows]
    seen = _see(list(dict.fromkeys(images)), pool)
    found: dict[str, dict[str, float]] = {name: {} for name in BASELINES}
    for domain, rated in tests.items():
        learnt = [row for row in sets[domain] if row.image in seen]
        _require_two(domain, learnt)
        human = np.array([row.score for row in learnt])
        known = [row.image for row in rated if row.image in seen]
        columns = [np.array([seen[row.image][kind] for row in learnt]) for kind in (0, 1)]
        wanted = [np.array([seen[image][kind] for image in known]) for kind in (0, 1)]
        fitted = (
            np.full(len(known), human.mean()),
            _fitted("ridge", columns[0], human, wanted[0], seed),
            _fitted("boosting", columns[0], human, wanted[0], seed),
            _fitted("ridge", columns[1], human, wanted[1], seed),
        )
        for name, values in zip(BASELINES, fitted, strict=True):
            found[name] |= zip(known, np.clip(values, 0.0, 1.0).tolist(), strict=True)
    return {name: [_row(row.image, scores.get(row.image), name) for row in held_out] for name, scores in found.items()}


def _require_two(domain: str, learnt: Sequence[Rating]) -> None:
    if len(learnt) < 2:
        raise AesError(
            f"baselines learn from the split train, and {domain} has fewer than two pictures there that can be opened",
            fix="leave out --baselines, or give ratings with a split train",
        )


def _require_sklearn() -> None:
    """AesError where it is missing, before any picture is opened."""
    if importlib.util.find_spec("sklearn") is None:
        raise AesError("baselines need scikit-learn, which is not installed", fix=install("baselines"))


def _drawn(rows: Sequence[Rating], seed: int) -> list[Rating]:
    order = np.random.default_rng(seed).permutation(len(rows))[:MOST_TRAINED]
    return [rows[i] for i in sorted(order)]


def _see(images: Sequence[str], pool: Executor | None) -> dict[str, tuple[Column, Column]]:
    """The measures and the features of each picture that can be opened."""
    classifier = load_classifier()
    seen: dict[str, tuple[Column, Column]] = {}
    opened = prefetch_images(images, max_pixels=MAX_PIXELS, pool=pool, depth=AHEAD)
    with progress_bar("baselines", total=len(images)) as progress:
        for batch in _batches(zip(images, opened, strict=True)):
            features = classifier.mean_features([picture for _, picture in batch])
            for (image, picture), feature in zip(batch, features, strict=True):
                seen[image] = (as_vector(measure(picture)), feature)
            progress.advance(len(batch))
    return seen


def _batches(opened: Iterator[tuple[str, Image.Image | AesError]]) -> Iterator[list[tuple[str, Image.Image]]]:
    batch: list[tuple[str, Image.Image]] = []
    for image, picture in opened:
        if isinstance(picture, Image.Image):
            batch.append((image, picture))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _fitted(kind: str, x: Grid, y: Column, of: Grid, seed: int) -> Column:
    """(m,) predictions for `of` (m, d) after learning x (n, d) → y (n,). The penalty of ridge is chosen within x."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model: Any = (
        make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 21)))
        if kind == "ridge"
        else HistGradientBoostingRegressor(random_state=seed)
    )
    predicted: Column = model.fit(x, y).predict(of) if len(of) else np.empty(0)
    return predicted


def _row(image: str, score: float | None, name: str) -> Prediction:
    error = None if score is not None else "the picture cannot be opened"
    origin = Origin(name, "learnt from the split train", "baselines")
    return replace(empty_row(origin), image=image, score=score, error=error)
