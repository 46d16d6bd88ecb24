"""Measures of rationales: variety, and agreement of the words with picture and score. Pure functions.

English only. Texts are the reasoning without tags. No judge model is used: lexicons and ridge regressions on words are
crude, but they treat every model the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aesr1.critique_text import words
from aesr1.errors import AesError
from aesr1.intervals import Interval, bootstrap
from aesr1.metrics import Column, Grid, srcc

RIDGES = np.logspace(-1, 6, 15)
MOST_WORDS = 2000
"""The penalties to choose from, and the number of most frequent words that are features."""


class PictureFit(NamedTuple):
    """Cross-validated R² of the measurements of a picture, predicted from its text; mean over measurements."""

    own: Interval
    shuffled: Interval  # the control: each text with the picture of another text
    difference: Interval  # own − shuffled, over the same draws


def distinct_texts(reasonings: Sequence[str]) -> float:
    """Different texts / all texts, ignoring case and white space. AesError on no texts, as in all functions here."""
    _require(reasonings)
    return len({" ".join(text.lower().split()) for text in reasonings}) / len(reasonings)


def distinct_ngrams(reasonings: Sequence[str], *, size: int) -> float:
    """Different word sequences of this size / all of them (distinct-n, Li et al. 2016); 0 if there are none.

    It falls with the amount of text, so compare models on the same images and with similar length.
    """
    _require(reasonings)
    listed = [words(text) for text in reasonings]
    ngrams = [tuple(each[i : i + size]) for each in listed for i in range(len(each) - size + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def text_follows_picture(
    reasonings: Sequence[str],
    measurements: ArrayLike,
    *,
    seed: int,
    folds: int = 5,
    shuffles: int = 10,
    draws: int = 2000,
) -> PictureFit:
    """Whether the words describe the picture, compared with a wrong-photo control.

    measurements (n, d): one row for each picture, any units; constant columns are left out. A ridge regression on the
    words of a text predicts each measurement out of fold: R² = 1 − Σ(y − ŷ)² / Σ(y − ȳ)², with ȳ the mean of the
    training folds, averaged over columns. `shuffled` is the mean over `shuffles` pairings in which every text has
    another picture. Intervals are 95 %; they resample images without fitting again. Texts that only share a style
    have a difference of 0. AesError on fewer than 2 · folds rows or on measurements that are not finite.
    """
    _require(reasonings)
    pictures = _varying(measurements, len(reasonings))
    n, columns = pictures.shape
    rng = np.random.default_rng(seed)
    part = _parts(n, folds, rng)
    orders = [np.arange(n), *(derangement(n, rng) for _ in range(shuffles))]
    targets = np.concatenate([pictures[order] for order in orders], axis=1)
    deviation, centre = _out_of_fold(_word_features(reasonings), targets, part)
    residual = ((targets - centre - deviation) ** 2).reshape(n, len(orders), columns)
    total = ((targets - centre) ** 2).reshape(n, len(orders), columns)
    # The first row has every image once; the others are the bootstrap.
    times = np.vstack([np.ones(n, dtype=np.int64), rng.multinomial(n, np.full(n, 1 / n), size=draws)])
    own = _r_squared(times, residual[:, 0], total[:, 0])
    shuffled = _r_squared(times, residual[:, 1:].mean(axis=1), total[:, 1:].mean(axis=1))
    return PictureFit(own=_interval(own), shuffled=_interval(shuffled), difference=_interval(own - shuffled))


def text_predicts_score(
    reasonings: Sequence[str], scores: ArrayLike, *, seed: int, folds: int = 5, draws: int = 2000
) -> Interval:
    """SRCC of scores (n,) and their out-of-fold predictions by a ridge regression on the words of the texts.

    With scores of the model: whether text and score agree. With human scores: how much the text says about them.
    """
    _require(reasonings)
    targets = np.asarray(scores, dtype=np.float64)
    part = _parts(len(reasonings), folds, np.random.default_rng(seed))
    deviation, _ = _out_of_fold(_word_features(reasonings), _varying(targets[:, None], len(reasonings)), part)
    # Without the training mean: it is low if the held-out fold is high, so alone it would correlate negatively.
    return bootstrap(srcc, deviation[:, 0], targets, draws=draws, seed=seed)


def _require(reasonings: Sequence[str]) -> None:
    if not reasonings:
        raise AesError("there are no rationales to measure", fix="score with reasoning on, and leave out empty ones")


def _varying(measurements: ArrayLike, rows: int) -> Grid:
    """The measurements (n, d), checked and without constant columns."""
    grid = np.asarray(measurements, dtype=np.float64)
    if grid.ndim != 2 or len(grid) != rows or not np.isfinite(grid).all():
        raise AesError(
            f"measurements of shape {grid.shape} for {rows} rationales, or values that are not finite",
            fix="give one row of finite numbers for each rationale, in the same order",
        )
    varying = grid[:, np.ptp(grid, axis=0) > 0] if rows else grid[:, :0]
    if not varying.size:
        raise AesError("no measurement differs between the images", fix="give more images, or other measurements")
    return varying


def _parts(rows: int, folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(n,) the fold of each row."""
    if folds < 2 or rows < 2 * folds:
        raise AesError(
            f"{rows} rationales are too few for {folds} folds",
            fix="use 2 folds or more, and at least twice as many rationales",
        )
    return rng.permutation(np.arange(rows) % folds)


def derangement(rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(n,) a permutation without fixed points."""
    cycle = rng.permutation(rows)
    order = np.empty_like(cycle)
    order[cycle] = np.roll(cycle, 1)
    return order


def _word_features(reasonings: Sequence[str]) -> Grid:
    """(n, v) 1 if the text contains the word, for the most frequent words that appear in two texts or more."""
    # Not sets: they order words by their hash, which differs between runs.
    words_of = [dict.fromkeys(words(text)) for text in reasonings]
    times = Counter(word for each in words_of for word in each)
    column = {word: i for i, (word, count) in enumerate(times.most_common(MOST_WORDS)) if count > 1}
    grid = np.zeros((len(reasonings), max(1, len(column))))
    for row, each in zip(grid, words_of, strict=True):
        row[[column[word] for word in each if word in column]] = 1
    return grid


def _out_of_fold(features: Grid, targets: Grid, part: NDArray[np.int64]) -> tuple[Grid, Grid]:
    """Features (n, v), targets (n, t) → two (n, t): predicted deviation from the training mean, and that mean."""
    deviation, centre = np.empty_like(targets), np.empty_like(targets)
    for fold in range(int(part.max()) + 1):
        test = part == fold
        centre_of_features, mean = features[~test].mean(axis=0), targets[~test].mean(axis=0)
        weights = _ridge(features[~test] - centre_of_features, targets[~test] - mean)
        deviation[test] = (features[test] - centre_of_features) @ weights
        centre[test] = mean
    return deviation, centre


def _ridge(features: Grid, targets: Grid) -> Grid:
    """Centred features (n, v), targets (n, t) → weights (v, t); leave-one-out chooses the penalty of each target."""
    left, sizes, right = np.linalg.svd(features, full_matrices=False)
    along = left.T @ targets
    least, scales = np.full(targets.shape[1], np.inf), np.zeros_like(along)
    for ridge in RIDGES:
        kept = sizes**2 / (sizes**2 + ridge)
        leverage = 1 / len(features) + left**2 @ kept
        residuals = (targets - left @ (kept[:, None] * along)) / np.maximum(1 - leverage, 1e-9)[:, None]
        errors = (residuals**2).sum(axis=0)
        better = errors < least
        least = np.where(better, errors, least)
        scales[:, better] = (sizes / (sizes**2 + ridge))[:, None]
    weights: Grid = right.T @ (scales * along)
    return weights


def _r_squared(times: NDArray[np.int64], residual: Grid, total: Grid) -> Column:
    """Mean R² over columns: count of each image in each draw (R, n), squared errors (n, d) twice → (R,)."""
    sums = times @ total
    values: Column = 1 - np.divide(times @ residual, sums, out=np.ones_like(sums), where=sums > 0).mean(axis=1)
    return values


def _interval(values: Column) -> Interval:
    """The first value, with the 95 % interval of the other values."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Interval(float(values[0]), float(low), float(high))
