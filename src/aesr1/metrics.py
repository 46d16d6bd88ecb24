"""Agreement of scores with people: one table of metrics, intervals, the rater ceiling. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, rankdata

from aesr1.errors import AesError

Column = NDArray[np.float64]
Grid = NDArray[np.float64]
Indices = NDArray[np.integer]
Scores = ArrayLike
Statistic = Callable[[Scores, Scores], float]
Rows = Callable[[Indices, Column, Column], Column]

PAIR_WORK, FEWEST_PAIR_DRAWS = 5e10, 250
"""Largest cost of a bootstrap over pairs, as draws × n² (seconds on two cores), and the smallest number of draws."""
_CHUNK, _BLOCK = 8_000_000, 512  # bound memory: numbers of a chunk of draws, columns of a block of pairs


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its interval, 95 % unless asked otherwise."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside: for a difference, whether it is more than chance."""
        return self.low > 0 or self.high < 0


class RaterCeiling(NamedTuple):
    """The agreement of a second panel with the same number of raters with the first."""

    plcc: Interval
    srcc: Interval


def plcc(predicted: Scores, human: Scores) -> float:
    """Pearson's correlation of two (n,). A constant predictor gets 0.

    AesError on unequal lengths, fewer than 2 rows, NaN, or human scores that are all equal.
    """
    return _of_all(plcc, *_columns(predicted, human, ordered=True))


def srcc(predicted: Scores, human: Scores) -> float:
    """Spearman's rank correlation, ties at their average rank. Zero and errors as in `plcc`."""
    return _of_all(srcc, *_columns(predicted, human, ordered=True))


def krcc(predicted: Scores, human: Scores) -> float:
    """Kendall's tau-b, which allows for ties on both sides. Zero and errors as in `plcc`."""
    return _of_all(krcc, *_columns(predicted, human, ordered=True))


def mae(predicted: Scores, human: Scores) -> float:
    """Mean absolute error, on the scale of its inputs. Errors as in `plcc`, but human scores may be all equal."""
    return _of_all(mae, *_columns(predicted, human))


def pair_accuracy(predicted: Scores, human: Scores, *, margin: float = 0.0) -> float:
    """Share of pairs of images ordered as people order them; a predicted tie counts half.

    Pairs whose human scores differ by `margin` or less are dropped. A constant predictor gets .5. AesError
    where no pair is left, and as in `plcc`.
    """
    first, people = _columns(predicted, human, ordered=True)
    if np.ptp(people) <= margin:
        raise AesError(f"no two human scores differ by more than {margin}", fix="choose a smaller margin")
    return float(_pair_accuracy(np.arange(len(people))[None], first, people, margin=margin)[0])


def bootstrap(
    statistic: Statistic, predicted: Scores, human: Scores, *, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """A statistic of two (n,) with the percentile interval over images resampled with replacement.

    Draws with equal human scores have no correlation and are left out. `krcc` and
    `pair_accuracy` use `pair_draws(n, draws)` draws. AesError on a statistic that is not in METRICS.
    """
    first, people = _columns(predicted, human)
    return _interval(statistic(first, people), _resampled(statistic, first, people, draws, seed), level)


def paired_bootstrap(
    statistic: Statistic,
    first: Scores,
    second: Scores,
    human: Scores,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The difference second − first of a statistic, (n,) each, both with the same resampled images.

    Otherwise as `bootstrap`.
    """
    before, people = _columns(first, human)
    after, _ = _columns(second, human)
    value = statistic(after, people) - statistic(before, people)
    gains = _resampled(statistic, after, people, draws, seed) - _resampled(statistic, before, people, draws, seed)
    return _interval(value, gains, level)


def pair_draws(rows: int, draws: int) -> int:
    """How many of `draws` a bootstrap over pairs of `rows` images takes: all up to 5,000 images, then fewer."""
    return min(draws, max(FEWEST_PAIR_DRAWS, int(PAIR_WORK / rows**2)))


def wilson(successes: int, total: int, *, level: float = 0.95) -> Interval:
    """A share with Wilson's score interval, which stays inside [0, 1] at shares of 0 and 1 too. AesError on total 0."""
    if not 0 <= successes <= total or total == 0:
        raise AesError(f"{successes} of {total} is not a share", fix="count at least one row")
    interval = binomtest(successes, total).proportion_ci(level, method="wilson")
    return Interval(successes / total, float(interval.low), float(interval.high))


def rater_ceiling(
    votes: Sequence[ArrayLike], marks: ArrayLike, *, draws: int = 200, seed: int = 0, level: float = 0.95
) -> RaterCeiling:
    """Agreement of people with people: an upper bound for a model on these ratings.

    votes: n counts (m,) of how many raters chose each of the marks (m,). Each draw splits every image's votes in
    two random halves and correlates their means; 2r / (1 + r) (Spearman-Brown) extends that to the full number of
    raters; r < 0 counts as 0. The value uses the mean r over draws, the interval draws that also resample the images.
    A model that knew the mean opinion of all people could reach the square root of PLCC's value.
    AesError on fewer than 2 images, fewer than 2 votes for one, or counts that do not fit the marks.
    """
    counts, points = _vote_counts(votes, marks)
    rng, sizes = np.random.default_rng(seed), counts.sum(axis=1) // 2
    split = rng.multivariate_hypergeometric
    halves = np.stack([split(row, size, size=draws) for row, size in zip(counts, sizes, strict=True)], axis=1)
    first, second = halves @ points / sizes, (counts - halves) @ points / (counts.sum(axis=1) - sizes)
    chosen = rng.integers(len(counts), size=first.shape)
    again = np.take_along_axis(first, chosen, axis=1), np.take_along_axis(second, chosen, axis=1)

    def ceiling(correlate: Callable[[Grid, Grid], Column]) -> Interval:
        value = _spearman_brown(np.nan_to_num(correlate(first, second)).mean(keepdims=True))[0]
        return _interval(value, _spearman_brown(np.nan_to_num(correlate(*again))), level)

    return RaterCeiling(
        plcc=ceiling(_pearson), srcc=ceiling(lambda one, two: _pearson(rankdata(one, axis=1), rankdata(two, axis=1)))
    )


def _vote_counts(votes: Sequence[ArrayLike], marks: ArrayLike) -> tuple[NDArray[np.int64], Column]:
    points = np.asarray(marks, dtype=np.float64)
    counts = [np.asarray(row, dtype=np.int64) for row in votes]
    if len(counts) < 2:
        raise AesError(f"a rater ceiling needs 2 images with votes, got {len(counts)}", fix="give more images' votes")
    for number, row in enumerate(counts):
        if row.shape != points.shape or row.min() < 0 or row.sum() < 2:
            raise AesError(
                f"the votes of row {number} are {row.tolist()}: not two or more votes over {points.size} marks",
                fix="leave out images with fewer than 2 raters, and give one count for each mark",
            )
    return np.stack(counts), points


def _spearman_brown(correlation: Column) -> Column:
    half: Column = np.maximum(correlation, 0.0)
    return 2 * half / (1 + half)


def _columns(predicted: Scores, human: Scores, *, ordered: bool = False) -> tuple[Column, Column]:
    """Both as checked columns; `ordered`: the human scores must differ."""
    first, people = np.asarray(predicted, dtype=np.float64), np.asarray(human, dtype=np.float64)
    if first.ndim != 1 or first.shape != people.shape:
        raise AesError(
            f"predicted {first.shape} and human scores {people.shape} are not two columns of one length",
            fix="give one predicted and one human score for each image, in the same order",
        )
    if len(people) < 2:
        raise AesError(f"agreement needs at least 2 images, got {len(people)}", fix="score and rate more images")
    for name, column in (("predicted", first), ("human", people)):
        broken = np.flatnonzero(~np.isfinite(column))
        if broken.size:
            raise AesError(
                f"{broken.size} of {len(column)} {name} scores are not finite numbers, first: row {broken[0]}",
                fix="leave those images out, or fill in a score and report it",
            )
    if ordered and np.ptp(people) == 0:
        raise AesError(
            f"all human scores are {people[0]}, so they have no order", fix="choose images rated differently"
        )
    return first, people


def _of_all(statistic: Statistic, predicted: Column, human: Column) -> float:
    metric = _metric_of(statistic)
    assert metric is not None
    return float(metric.rows(np.arange(len(human))[None], predicted, human)[0])


def _resampled(statistic: Statistic, predicted: Column, human: Column, draws: int, seed: int) -> Column:
    """(draws,) values over resampled images, NaN where a draw's human scores are equal.

    The same seed and n give the same draws.
    """
    metric = _metric_of(statistic)
    if draws < 1 or metric is None:
        raise AesError(
            f"no interval of {statistic} from {draws} draws",
            fix=f"give at least 1 draw (2,000 are usual) and one of {', '.join(known.name for known in METRICS)}",
        )
    count = pair_draws(len(human), draws) if metric.pairs else draws
    indices = np.random.default_rng(seed).integers(len(human), size=(count, len(human)), dtype=np.int32)
    step = max(1, _CHUNK // len(human))
    return np.concatenate([metric.rows(indices[i : i + step], predicted, human) for i in range(0, count, step)])


def _interval(value: float, values: Column, level: float) -> Interval:
    kept = values[~np.isnan(values)]
    if not kept.size:
        raise AesError("the human scores are equal in every draw", fix="ask for more draws or rate more images")
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def _pearson(predicted: Grid, human: Grid) -> Column:
    """(R, n) twice → (R,), row by row: 0 where the predictions are constant, NaN where the human scores are."""
    first = predicted - predicted.mean(axis=1, keepdims=True)
    people = human - human.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(first, axis=1) * np.linalg.norm(people, axis=1)
    varies = (np.ptp(predicted, axis=1) > 0) & (norm > 0)
    values = np.divide(np.einsum("rn,rn->r", first, people), norm, out=np.zeros(len(norm)), where=varies)
    return np.where(np.ptp(human, axis=1) > 0, np.clip(values, -1.0, 1.0), np.nan)


def _drawn_ranks(indices: Indices, column: Column) -> Grid:
    """(R, n) average ranks within each draw, counted by level: no sorting, linear in n."""
    levels = _levels(column)
    times = _tally(levels[indices], int(levels.max()) + 1)
    return np.take_along_axis(times.cumsum(axis=1) - (times - 1) / 2, levels[indices], axis=1)


def _krcc(indices: Indices, predicted: Column, human: Column) -> Column:
    apart = _untied_pairs(indices, human)
    norm = np.sqrt(_untied_pairs(indices, predicted)) * np.sqrt(apart)
    values = np.divide(_agreement(indices, predicted, human), norm, out=np.zeros(len(norm)), where=norm > 0)
    return np.where(apart > 0, values, np.nan)


def _pair_accuracy(indices: Indices, predicted: Column, human: Column, *, margin: float = 0.0) -> Column:
    apart = _agreement(indices, human, human, margin) if margin else _untied_pairs(indices, human)
    share: Column = np.full(len(apart), np.nan)
    np.divide(_agreement(indices, predicted, human, margin), apart, out=share, where=apart > 0)
    return 0.5 + share / 2


def _agreement(indices: Indices, predicted: Column, human: Column, margin: float = 0.0) -> Column:
    """(R,) pairs in the human order minus pairs in the other order; each pair counts in both directions.

    For each row, Σ_ij w_i w_j sign(p_i − p_j) sign(h_i − h_j), where w_i is how often the row holds i. Matrix
    products in float32 are fast, and exact here: their sums are whole numbers up to n.
    """
    times = _tally(indices, len(human)).astype(np.float32)
    levels, people = _levels(predicted).astype(np.float32), _levels(human).astype(np.float32)
    total = np.zeros(len(indices))
    for start in range(0, len(human), _BLOCK):
        block = slice(start, start + _BLOCK)
        signs = np.sign(levels[:, None] - levels[block]) * np.sign(people[:, None] - people[block])
        if margin:
            signs *= np.abs(human[:, None] - human[block]) > margin
        total += np.einsum("rb,rb->r", times @ signs, times[:, block], dtype=np.float64)
    return total


def _untied_pairs(indices: Indices, column: Column) -> Column:
    """(R,) pairs that differ, each counted in both directions."""
    levels = _levels(column)
    tied = _tally(levels[indices], int(levels.max()) + 1).astype(np.float64)
    untied: Column = indices.shape[1] ** 2 - np.einsum("rl,rl->r", tied, tied)
    return untied


def _levels(column: Column) -> NDArray[np.int64]:
    return np.unique(column, return_inverse=True)[1].astype(np.int64)


def _tally(labels: Indices, kinds: int) -> NDArray[np.int64]:
    """(R, n) labels → (R, kinds): how often each row holds each label."""
    offsets = np.arange(len(labels), dtype=np.int64)[:, None] * kinds
    return np.bincount((labels + offsets).ravel(), minlength=len(labels) * kinds).reshape(len(labels), kinds)


class Metric(NamedTuple):
    """A measure of agreement and how it is shown."""

    name: str  # in results.json
    title: str  # in tables
    statistic: Statistic
    rows: Rows  # the same for each of R draws: indices (R, n), predicted (n,), human (n,) → (R,)
    higher_is_better: bool = True
    compared: bool = False  # differences between models are reported
    pairs: bool = False  # compares pairs of images, so that large sets get fewer draws


METRICS = (
    Metric("plcc", "PLCC ↑", plcc, lambda i, predicted, human: _pearson(predicted[i], human[i]), compared=True),
    Metric(
        "srcc",
        "SRCC ↑",
        srcc,
        lambda i, predicted, human: _pearson(_drawn_ranks(i, predicted), _drawn_ranks(i, human)),
        compared=True,
    ),
    Metric("krcc", "KRCC ↑", krcc, _krcc, pairs=True),
    Metric("pair_accuracy", "pair accuracy ↑", pair_accuracy, _pair_accuracy, pairs=True),
    Metric(
        "mae",
        "MAE ↓",
        mae,
        lambda i, predicted, human: np.abs(predicted - human)[i].mean(axis=1),
        higher_is_better=False,
        compared=True,
    ),
)
"""Every metric in the order of the tables. A new metric is a function and an entry here."""


def _metric_of(statistic: Statistic) -> Metric | None:
    return next((metric for metric in METRICS if metric.statistic == statistic), None)
