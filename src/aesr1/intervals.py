"""Intervals of metrics and shares by a bootstrap over images, and the rater ceiling. Pure functions."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, rankdata

from aesr1.errors import AesError
from aesr1.metrics import Column, Draws, Grid, Indices, Metric, Scores, checked_columns, pearson

THREADS = min(8, os.cpu_count() or 1)
_CHUNK = 8_000_000  # numbers in a chunk of draws: limits memory


@dataclass(frozen=True)
class Interval:
    """A value and its interval, 95 % by default."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval: a difference is then larger than chance explains."""
        return self.low > 0 or self.high < 0


class RaterCeiling(NamedTuple):
    """Agreement of the mean scores with those of a second panel with as many raters."""

    plcc: Interval
    srcc: Interval


def bootstrap(
    metric: Metric, predicted: Scores, human: Scores, *, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """A metric of two (n,) with its percentile interval; the images are resampled with replacement.

    Draws whose human scores are all the same have no correlation and are left out. The intervals are those of
    `scipy.stats.bootstrap`, which is 3 to 10 times slower for ranks and gives NaN if one draw has no value; those of
    metrics of ranks and pairs are approximate beyond MOST_PAIRED images.
    """
    return mean_bootstrap(metric, [(predicted, human)], draws=draws, seed=seed, level=level)


def paired_bootstrap(
    metric: Metric,
    first: Scores,
    second: Scores,
    human: Scores,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The difference second − first of a metric, (n,) each; both use the same resampled images. See `bootstrap`."""
    return mean_bootstrap(metric, [(first, second, human)], draws=draws, seed=seed, level=level)


def mean_bootstrap(
    metric: Metric, sets: Sequence[Sequence[Scores]], *, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The mean of a metric over data sets, each counted once whatever its size, with its interval. See `bootstrap`.

    Each set is (predicted, human), or (first, second, human) for the mean of the differences second − first. Images
    are resampled within their set; the sets are taken as given.
    """
    return bootstrap_all([metric], sets, draws=draws, seed=seed, level=level)[metric.name]


def bootstrap_all(
    metrics: Sequence[Metric],
    sets: Sequence[Sequence[Scores]],
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """`mean_bootstrap` of several metrics by name, all over the same draws: with many images drawing takes longest."""
    values: list[Column] = []  # of each set: (metrics,)
    drawn: list[list[Column]] = []  # of each set and metric: (draws,)
    for number, (*columns, human) in enumerate(sets):
        models = [checked_columns(column, human)[0] for column in columns]
        _, people = checked_columns(columns[0], human)
        results = _resampled(metrics, models, people, draws, [seed, number] if number else seed)
        of_model = [[metric(model, people) for metric in metrics] for model in models]
        values.append(np.array(of_model[-1]) - (np.array(of_model[0]) if len(models) > 1 else 0.0))
        drawn.append(list(results[-1] - results[0] if len(models) > 1 else results[0]))
    means = np.mean(values, axis=0)
    return {
        metric.name: _interval(float(means[index]), np.mean([each[index] for each in drawn], axis=0), level)
        for index, metric in enumerate(metrics)
    }


def seeds_bootstrap(
    metrics: Sequence[Metric],
    runs: Sequence[Scores],
    human: Scores,
    *,
    before: Sequence[Scores] = (),
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """The mean of each metric over runs with different seeds, by name; with `before`, minus the mean over those.

    runs: S predictions (n,) of the same images, before: S′ of them. Each draw takes the same images for all runs, so
    that the interval is of the mean over these runs and says nothing of other seeds. See `bootstrap`.
    """
    models = [checked_columns(column, human)[0] for column in (*runs, *before)]
    people = checked_columns(runs[0], human)[1]
    weights = np.array([1 / len(runs) for _ in runs] + [-1 / len(before) for _ in before])
    values = weights @ np.array([[metric(model, people) for metric in metrics] for model in models])
    drawn = np.tensordot(weights, _resampled(metrics, models, people, draws, seed), axes=1)
    return {metric.name: _interval(values[i], drawn[i], level) for i, metric in enumerate(metrics)}


def share_bootstrap(parts: Scores, whole: Scores, *, draws: int = 2000, seed: int = 0, level: float = 0.95) -> Interval:
    """Σ parts / Σ whole of two (n,), with its percentile interval; the n are resampled. AesError where Σ whole is 0."""
    part, of = (np.asarray(column, dtype=np.float64) for column in (parts, whole))
    if not of.sum() > 0:
        raise AesError("there is nothing to have a share of", fix="give at least one row that counts")
    times = np.random.default_rng(seed).multinomial(len(of), np.full(len(of), 1 / len(of)), size=draws)
    sums = times @ of
    return _interval(float(part.sum() / of.sum()), (times @ part)[sums > 0] / sums[sums > 0], level)


def wilson(successes: int, total: int, *, level: float = 0.95) -> Interval:
    """A share with Wilson's score interval. AesError on total 0."""
    if not 0 <= successes <= total or total == 0:
        raise AesError(f"{successes} of {total} is not a share", fix="count at least one row")
    interval = binomtest(successes, total).proportion_ci(level, method="wilson")
    return Interval(successes / total, float(interval.low), float(interval.high))


def rater_ceiling(
    votes: Sequence[ArrayLike], marks: ArrayLike, *, draws: int = 200, seed: int = 0, level: float = 0.95
) -> RaterCeiling:
    """How well people agree with each other on these ratings: a reference for the agreement of a model.

    votes: for n images the number of raters (m,) who chose each of the marks (m,). Each draw splits the votes of each
    image into two random halves and correlates their means; 2r / (1 + r) (Spearman-Brown) converts this to the full
    number of raters, with r < 0 set to 0. The value uses the mean r over draws; the draws of the interval also
    resample the images. A model that predicts the mean opinion of all people would reach the square root of PLCC's
    value. AesError on fewer than 2 images, fewer than 2 votes for an image, or counts that do not fit the marks.
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
        plcc=ceiling(pearson), srcc=ceiling(lambda one, two: pearson(rankdata(one, axis=1), rankdata(two, axis=1)))
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


def _resampled(
    metrics: Sequence[Metric], models: Sequence[Column], human: Column, draws: int, seed: int | list[int]
) -> NDArray[np.float64]:
    """(models, metrics, draws) values over resampled images, NaN if all human scores of a draw are the same.

    The same seed and n give the same draws.
    """
    if draws < 1:
        raise AesError(f"no interval from {draws} draws", fix="use at least 1 draw (2,000 are usual)")
    scores = [[metric.mapped(model, human) if metric.mapped else model for metric in metrics] for model in models]
    rng, step = np.random.default_rng(seed), max(1, _CHUNK // len(human))
    sizes = [min(step, draws - start) for start in range(0, draws, step)]

    def rows(indices: Indices) -> NDArray[np.float64]:
        draws = Draws(indices)
        return np.array(
            [[metric.rows(draws, each, human) for metric, each in zip(metrics, own, strict=True)] for own in scores]
        )

    chunks: list[Future[NDArray[np.float64]]] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for number, size in enumerate(sizes):
            if number > THREADS:  # so many chunks are in memory; the next is drawn while they are counted
                chunks[number - THREADS - 1].result()
            chunks.append(pool.submit(rows, rng.integers(len(human), size=(size, len(human)), dtype=np.int32)))
        return np.concatenate([chunk.result() for chunk in chunks], axis=-1)


def _interval(value: float, values: Column, level: float) -> Interval:
    kept = values[~np.isnan(values)]
    if not kept.size:
        raise AesError("in every draw the human scores are all the same", fix="use more draws or rate more images")
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))
