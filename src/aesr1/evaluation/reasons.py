"""Measures of rationales: variety, dimensions, leaks, tone, agreement with picture and score. Pure functions.

English only. Texts are the reasoning without tags. The measures are word lists and ridge regressions on words: simple,
but the same for every model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aesr1.critique_text import DIMENSIONS, common_sentences, dimensions_of, find_leak, sentences, stance_of, words
from aesr1.errors import AesError
from aesr1.metrics import Column, Grid, Interval, bootstrap, srcc

RIDGES = np.logspace(-1, 6, 15)
MOST_WORDS = 2000
"""Penalties that each regression chooses from, and the number of words that it uses."""


class Coverage(NamedTuple):
    """How the texts spread over AesCoT's dimensions."""

    shares: tuple[float, ...]  # of texts about each of DIMENSIONS
    mean: float  # of the shares
    entropy: float  # of mentions over dimensions, 0 one alone … 1 all alike


class Tone(NamedTuple):
    """Shares of all sentences, summing to 1."""

    praise: float
    critique: float
    neutral: float

    @property
    def critique_share(self) -> float | None:
        """Critique over critique and praise; None where no sentence takes a side."""
        sided = self.praise + self.critique
        return self.critique / sided if sided else None


class PictureFit(NamedTuple):
    """Cross-validated R² of a picture's measurements from its text, averaged over measurements."""

    own: Interval
    shuffled: Interval  # the control: each text against another text's picture
    difference: Interval  # own − shuffled, over the same draws


def distinct_texts(reasonings: Sequence[str]) -> float:
    """Different texts over all texts, but for case and white space. AesError on no texts, as everywhere here."""
    _require(reasonings)
    return len({" ".join(text.lower().split()) for text in reasonings}) / len(reasonings)


def distinct_ngrams(reasonings: Sequence[str], *, size: int) -> float:
    """Different word sequences of this size over all of them (distinct-n, Li et al. 2016); 0 where there are none.

    It falls with the amount of text: compare models on the same images and at like length.
    """
    _require(reasonings)
    listed = [words(text) for text in reasonings]
    ngrams = [tuple(each[i : i + size]) for each in listed for i in range(len(each) - size + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def template_rate(reasonings: Sequence[str], *, common: float = 0.05) -> float:
    """Share of sentences that are in the texts of more than `common` of the images, and of at least two."""
    _require(reasonings)
    templates = common_sentences(reasonings, common=common)
    found = [sentence in templates for text in reasonings for sentence in sentences(text)]
    return sum(found) / len(found) if found else 0.0


def dimension_coverage(reasonings: Sequence[str]) -> Coverage:
    """Which dimensions the texts name, by the beginnings of words. A value to report, not to maximise."""
    _require(reasonings)
    named = np.array([[name in dimensions_of(text) for name in DIMENSIONS] for text in reasonings])
    shares = named.mean(axis=0)
    spread = shares[shares > 0] / shares.sum() if shares.any() else np.ones(1)
    entropy = -float((spread * np.log(spread)).sum()) / np.log(len(DIMENSIONS))
    return Coverage(tuple(shares.tolist()), float(shares.mean()), float(abs(entropy)))


def leak_rate(reasonings: Sequence[str]) -> float:
    """Share of texts with a leak (`critique_text.find_leak`)."""
    _require(reasonings)
    return sum(find_leak(text) is not None for text in reasonings) / len(reasonings)


def tone(reasonings: Sequence[str]) -> Tone:
    """Sentences that praise, criticise or do neither: more words of PRAISE than FAULTS, fewer, or as many.

    A negation up to three words before a word turns it round ("not quite sharp", "nothing distracts").
    """
    _require(reasonings)
    signs = [stance_of(sentence) for text in reasonings for sentence in sentences(text)] or [0]
    return Tone(*(signs.count(sign) / len(signs) for sign in (1, -1, 0)))


def text_follows_picture(
    reasonings: Sequence[str],
    measurements: ArrayLike,
    *,
    seed: int,
    folds: int = 5,
    shuffles: int = 10,
    draws: int = 2000,
) -> PictureFit:
    """Whether the words depend on the picture, with a wrong-photo control.

    measurements (n, d): one row a picture, any units; columns that don't vary are left out. A ridge regression on
    which words a text holds predicts each measurement out of fold: R² = 1 − Σ(y − ŷ)² / Σ(y − ȳ)², ȳ the mean of
    the training folds, averaged over columns. Shuffled is the same with no text at its own picture, the mean of
    `shuffles` such pairings. Intervals are 95 %, over images resampled with the regressions kept. A text that
    does not depend on its picture has a difference of 0. AesError on fewer than 2 · folds rows or measurements not
    finite.
    """
    _require(reasonings)
    pictures = _varying(measurements, len(reasonings))
    n, columns = pictures.shape
    rng = np.random.default_rng(seed)
    part = _parts(n, folds, rng)
    orders = [np.arange(n), *(_derangement(n, rng) for _ in range(shuffles))]
    targets = np.concatenate([pictures[order] for order in orders], axis=1)
    deviation, centre = _out_of_fold(_presence(reasonings), targets, part)
    left = ((targets - centre - deviation) ** 2).reshape(n, len(orders), columns)
    whole = ((targets - centre) ** 2).reshape(n, len(orders), columns)
    # The first row is every image once, the others are the bootstrap's.
    times = np.vstack([np.ones(n, dtype=np.int64), rng.multinomial(n, np.full(n, 1 / n), size=draws)])
    own = _explained(times, left[:, 0], whole[:, 0])
    shuffled = _explained(times, left[:, 1:].mean(axis=1), whole[:, 1:].mean(axis=1))
    return PictureFit(own=_limits(own), shuffled=_limits(shuffled), difference=_limits(own - shuffled))


def text_predicts_score(
    reasonings: Sequence[str], scores: ArrayLike, *, seed: int, folds: int = 5, draws: int = 2000
) -> Interval:
    """SRCC between scores (n,) and the predictions of a ridge regression on the words, out of fold.

    With a model's own scores: whether text and score agree. With human scores: how much the text tells.
    """
    _require(reasonings)
    people = np.asarray(scores, dtype=np.float64)
    part = _parts(len(reasonings), folds, np.random.default_rng(seed))
    deviation, _ = _out_of_fold(_presence(reasonings), _varying(people[:, None], len(reasonings)), part)
    # Without the training mean, which is low where the fold left out is high and would correlate below 0 by itself.
    return bootstrap(srcc, deviation[:, 0], people, draws=draws, seed=seed)


def _require(reasonings: Sequence[str]) -> None:
    if not reasonings:
        raise AesError("there are no rationales to measure", fix="score with reasoning on, and leave out empty ones")


def _varying(measurements: ArrayLike, rows: int) -> Grid:
    """(n, d) measurements, checked, without constant columns."""
    grid = np.asarray(measurements, dtype=np.float64)
    if grid.ndim != 2 or len(grid) != rows or not np.isfinite(grid).all():
        raise AesError(
            f"measurements of shape {grid.shape} for {rows} rationales, or some of them not finite",
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
            fix="take 2 folds or more, and at least twice as many rationales",
        )
    return rng.permutation(np.arange(rows) % folds)


def _derangement(rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(n,) an order that leaves nothing in its place."""
    cycle = rng.permutation(rows)
    order = np.empty_like(cycle)
    order[cycle] = np.roll(cycle, 1)
    return order


def _presence(reasonings: Sequence[str]) -> Grid:
    """(n, v) 1 where a text holds a word, for the most frequent words that stand in two texts or more."""
    # Sets would order words by their hash, which differs from run to run.
    held = [dict.fromkeys(words(text)) for text in reasonings]
    times = Counter(word for each in held for word in each)
    column = {word: i for i, (word, count) in enumerate(times.most_common(MOST_WORDS)) if count > 1}
    grid = np.zeros((len(reasonings), max(1, len(column))))
    for row, each in zip(grid, held, strict=True):
        row[[column[word] for word in each if word in column]] = 1
    return grid


def _out_of_fold(features: Grid, targets: Grid, part: NDArray[np.int64]) -> tuple[Grid, Grid]:
    """Features (n, v), targets (n, t) → both (n, t): what the words add to the training mean, and that mean."""
    deviation, centre = np.empty_like(targets), np.empty_like(targets)
    for fold in range(int(part.max()) + 1):
        held = part == fold
        typical, mean = features[~held].mean(axis=0), targets[~held].mean(axis=0)
        deviation[held] = (features[held] - typical) @ _ridge(features[~held] - typical, targets[~held] - mean)
        centre[held] = mean
    return deviation, centre


def _ridge(features: Grid, targets: Grid) -> Grid:
    """Centred features (n, v), targets (n, t) → weights (v, t), each target's penalty the best left-one-out."""
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


def _explained(times: NDArray[np.int64], left: Grid, whole: Grid) -> Column:
    """R² averaged over columns: how often each draw holds each image (R, n), squared errors (n, d) → (R,)."""
    total = times @ whole
    explained: Column = 1 - np.divide(times @ left, total, out=np.ones_like(total), where=total > 0).mean(axis=1)
    return explained


def _limits(values: Column) -> Interval:
    """The first value, with the 95 % interval of the others."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Interval(float(values[0]), float(low), float(high))
