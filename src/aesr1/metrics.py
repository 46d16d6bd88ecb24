"""Agreement of scores with people: one table of metrics, intervals, the rater ceiling. Pure functions."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.sparse import csr_array
from scipy.special import expit
from scipy.stats import binomtest, kendalltau, rankdata

from aesr1.errors import AesError

Column = NDArray[np.float64]
Grid = NDArray[np.float64]
Indices = NDArray[np.integer]
Scores = ArrayLike

MOST_PAIRED, REFERENCES = 5_000, 1_000
"""Up to so many images all pairs are counted, and all ranks taken, in every draw. Beyond, a draw counts each image's
own agreement with so many others, and ranks change to first order, which changes an interval by 1 or 2 %; the value
itself is exact."""
THREADS = min(8, os.cpu_count() or 1)
_CHUNK, _BLOCK = 8_000_000, 512  # limit memory: numbers in a chunk of draws, columns in a block of pairs


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


@dataclass(frozen=True)
class Draws:
    """R draws of the n images, with replacement, as all metrics use them."""

    indices: Indices  # (R, n)

    @cached_property
    def counts(self) -> Grid:
        """(R, n): how often each image was drawn. A product with it is faster than a look at the drawn values."""
        return _tally(self.indices, self.indices.shape[1]).astype(np.float64)


@dataclass(frozen=True)
class Metric:
    """A measure of agreement: `plcc(predicted, human)` gives the value for two (n,)."""

    name: str  # in results.json
    title: str  # in tables
    rows: Callable[..., Column]  # values of R draws: Draws, predicted (n,), human (n,) → (R,)
    higher_is_better: bool = True
    compared: bool = False  # differences between models are reported
    ordered: bool = True  # has no value if all human scores are the same
    mapped: Callable[[Column, Column], Column] | None = None  # predicted, human → (n,), once, before images are drawn

    def __call__(self, predicted: Scores, human: Scores, **options: float) -> float:
        """`options` go to the function behind the metric: `pair_accuracy` has `margin`.

        AesError on unequal lengths, fewer than 2 images, NaN or infinity, and, if `ordered`, human scores that are
        all the same.
        """
        first, people = _columns(predicted, human, ordered=self.ordered)
        first = self.mapped(first, people) if self.mapped else first
        return float(self.rows(_once(len(people)), first, people, **options)[0])


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
        models = [_columns(column, human)[0] for column in columns]
        _, people = _columns(columns[0], human)
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
    models = [_columns(column, human)[0] for column in (*runs, *before)]
    people = _columns(runs[0], human)[1]
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
    """Both as checked (n,) arrays; with `ordered`, the human scores must differ."""
    first, people = np.asarray(predicted, dtype=np.float64), np.asarray(human, dtype=np.float64)
    if first.ndim != 1 or first.shape != people.shape:
        raise AesError(
            f"predicted {first.shape} and human scores {people.shape} are not two columns of the same length",
            fix="give one predicted and one human score for each image, in the same order",
        )
    if len(people) < 2:
        raise AesError(f"agreement needs at least 2 images, got {len(people)}", fix="score and rate more images")
    for name, column in (("predicted", first), ("human", people)):
        broken = np.flatnonzero(~np.isfinite(column))
        if broken.size:
            raise AesError(
                f"{broken.size} of {len(column)} {name} scores are not finite numbers, first: row {broken[0]}",
                fix="leave those images out, or fill in a score and report that",
            )
    if ordered and np.ptp(people) == 0:
        raise AesError(
            f"all human scores are {people[0]}, so they have no order", fix="choose images with different ratings"
        )
    return first, people


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

    values: list[NDArray[np.float64]] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(sizes), THREADS):
            chunks = [
                rng.integers(len(human), size=(size, len(human)), dtype=np.int32)
                for size in sizes[start : start + THREADS]
            ]
            values += pool.map(rows, chunks)
    return np.concatenate(values, axis=-1)


def _interval(value: float, values: Column, level: float) -> Interval:
    kept = values[~np.isnan(values)]
    if not kept.size:
        raise AesError("in every draw the human scores are all the same", fix="use more draws or rate more images")
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def _pearson(predicted: Grid, human: Grid) -> Column:
    """Two (R, n) → (R,), row by row: 0 if the predictions are constant, NaN if the human scores are."""
    first = predicted - predicted.mean(axis=1, keepdims=True)
    people = human - human.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(first, axis=1) * np.linalg.norm(people, axis=1)
    varies = (np.ptp(predicted, axis=1) > 0) & (norm > 0)
    values = np.divide(np.einsum("rn,rn->r", first, people), norm, out=np.zeros(len(norm)), where=varies)
    return np.where(np.ptp(human, axis=1) > 0, np.clip(values, -1.0, 1.0), np.nan)


def _plcc(draws: Draws, predicted: Column, human: Column) -> Column:
    """Pearson's correlation. A constant predictor gets 0, because it orders nothing."""
    first, people = predicted - predicted.mean(), human - human.mean()
    columns = np.stack([first, people, first**2, people**2, first * people], axis=1)
    x, y, xx, yy, xy = (draws.counts @ columns / len(human)).T
    variances = np.stack([xx - x**2, yy - y**2])
    flat = (variances <= 1e-9 * columns[:, 2:4].mean(axis=0)[:, None]).any(axis=0)  # perhaps by rounding alone
    values: Column = np.clip((xy - x * y) / np.sqrt(np.where(flat, 1.0, variances.prod(axis=0))), -1.0, 1.0)
    drawn = draws.indices[flat]
    values[flat] = _pearson(predicted[drawn], human[drawn])
    return values


def _srcc(draws: Draws, predicted: Column, human: Column) -> Column:
    """Spearman's rank correlation; ties get their average rank. A constant predictor gets 0."""
    if len(human) <= MOST_PAIRED or not np.ptp(predicted) or not np.ptp(human):
        return _pearson(_drawn_ranks(draws.indices, predicted), _drawn_ranks(draws.indices, human))
    own, whole = _own_covariances(predicted.tobytes(), human.tobytes())
    # Σ_i w_i R_i S_i, R and S the ranks under the counts w: near w = 1 its value plus Σ_m (w_m − 1) of its derivative
    both, first, second = (draws.counts @ own - own.sum(axis=0) + whole).T
    values: Column = np.clip(both / np.sqrt(first * second), -1.0, 1.0)
    return values


@lru_cache(maxsize=4)
def _own_covariances(predicted_bytes: bytes, human_bytes: bytes) -> tuple[Grid, Column]:
    """(n, 3) derivatives by each image's count, and (3,) values, of the sums of products of the centred ranks.

    The products are of predicted and human, of predicted with itself, and of human with itself.
    """
    columns = np.frombuffer(predicted_bytes), np.frombuffer(human_bytes)
    ranks = [rankdata(column) - (len(column) + 1) / 2 for column in columns]

    def above(column: Column, values: Column) -> Column:
        """(n,) for each image the sum of `values` over those with a larger score; half of it for equal ones."""
        levels = _levels(column)
        of_level = np.bincount(levels, values)
        sums: Column = (of_level.sum() - of_level.cumsum() + of_level / 2)[levels]
        return sums

    own, whole = [], []
    for i, j in ((0, 1), (0, 0), (1, 1)):
        own.append(ranks[i] * ranks[j] + above(columns[i], ranks[j]) + above(columns[j], ranks[i]))
        whole.append(ranks[i] @ ranks[j])
    return np.stack(own, axis=1), np.array(whole)


def _mae(draws: Draws, predicted: Column, human: Column) -> Column:
    """Mean absolute error, on the scale of the inputs."""
    errors: Column = draws.counts @ np.abs(predicted - human) / len(human)
    return errors


def _rmse(draws: Draws, predicted: Column, human: Column) -> Column:
    """Root of the mean squared error, on the scale of the inputs."""
    errors: Column = np.sqrt(draws.counts @ (predicted - human) ** 2 / len(human))
    return errors


def logistic_fit(predicted: Column, human: Column) -> Column:
    """(n,) scores, mapped to (n,) human scores by the logistic curve of four parameters of picture-quality papers.

    (b1 − b2) / (1 + exp(−(x − b3) / |b4|)) + b2, by least squares, from the usual beginning: the largest and the
    smallest human score, the mean score, a quarter of its standard deviation. Source: VQEG; pyiqa and DeQA-Score
    compute the same. It is fitted to the very images that are judged, so it flatters weak models most.
    """
    spread = float(predicted.std())
    if not spread:
        return predicted

    def curve(top: float, bottom: float, middle: float, slope: float) -> Column:
        mapped: Column = (top - bottom) * expit((predicted - middle) / max(abs(slope), 1e-9)) + bottom
        return mapped

    begin = (human.max(), human.min(), predicted.mean(), spread / 4)
    return curve(*least_squares(lambda parameters: curve(*parameters) - human, begin).x)


def _drawn_ranks(indices: Indices, column: Column) -> Grid:
    """(R, n) average ranks within each draw. Counts levels instead of sorting: linear in n."""
    levels = _levels(column)
    times = _tally(levels[indices], int(levels.max()) + 1)
    return np.take_along_axis(times.cumsum(axis=1) - (times - 1) / 2, levels[indices], axis=1)


def _krcc(draws: Draws, predicted: Column, human: Column) -> Column:
    """Kendall's tau-b, which corrects for ties on both sides. A constant predictor gets 0."""
    untied = _untied_pairs(draws, human)
    norm = np.sqrt(_untied_pairs(draws, predicted)) * np.sqrt(untied)
    values = np.divide(_agreement(draws, predicted, human), norm, out=np.zeros(len(norm)), where=norm > 0)
    return np.where(untied > 0, values, np.nan)


def _pair_accuracy(
    draws: Draws, predicted: Column, human: Column, *, margin: float = 0.0, limit: float = math.inf
) -> Column:
    """Share of pairs of images that are ordered as people order them; a predicted tie counts half.

    Pairs whose human scores differ by `margin` or less, or by more than `limit`, are left out. AesError if none is
    left.
    """
    if margin and np.ptp(human) <= margin:
        raise AesError(f"no two human scores differ by more than {margin}", fix="choose a smaller margin")

    def signs(scores: Column) -> Column:
        """Twice the pairs that the scores order as people do, minus those in the opposite order."""
        farther = _agreement_of_all(draws, scores, human, limit) if limit < np.ptp(human) else 0.0
        return _agreement(draws, scores, human, margin) - farther

    pairs = signs(human) if margin or limit < math.inf else _untied_pairs(draws, human)
    share: Column = np.full(len(pairs), np.nan)
    np.divide(signs(predicted), pairs, out=share, where=pairs > 0)
    return 0.5 + share / 2


def _calibration_error(draws: Draws, predicted: Column, human: Column) -> Column:
    """Mean of |mean predicted − mean human| over bins of equal count by predicted score, on the scale of the inputs.

    Ten bins, fewer for fewer than 100 images; equal predictions share a bin. Chance alone gives a little more than 0.
    """
    images, gaps = len(human), predicted - human
    bins = min(10, max(1, images // 10))
    if images > MOST_PAIRED:  # then the bins of all images are those of a draw
        by_bin = np.zeros((images, bins))
        by_bin[np.arange(images), _bins(rankdata(predicted), bins)] = gaps
        sums = draws.counts @ by_bin
    else:
        cells = _bins(_drawn_ranks(draws.indices, predicted), bins) + np.arange(len(draws.indices))[:, None] * bins
        flat = np.bincount(cells.ravel(), gaps[draws.indices].ravel(), minlength=len(cells) * bins)
        sums = flat.astype(np.float64).reshape(-1, bins)
    errors: Column = np.abs(sums).sum(axis=1) / images
    return errors


def _bins(ranks: Grid, bins: int) -> NDArray[np.int64]:
    """The bin of each of n ranks, which are in the last axis."""
    numbers: NDArray[np.int64] = ((ranks - 0.5) * bins / ranks.shape[-1]).astype(np.int64)
    return numbers


def _agreement(draws: Draws, predicted: Column, human: Column, margin: float = 0.0) -> Column:
    """(R,) pairs in the order of people minus pairs in the opposite order; each pair counts twice."""
    if len(human) <= MOST_PAIRED or margin:
        return _agreement_of_all(draws, predicted, human, margin)
    own = _own_agreement(predicted.tobytes(), human.tobytes())
    # Σ_ij w_i w_j s_ij near w = 1, where w_i counts image i in the row: twice Σ_i w_i Σ_j s_ij, less Σ_ij s_ij
    total: Column = 2 * (draws.counts @ own) - own.sum()
    return total


@lru_cache(maxsize=4)
def _own_agreement(predicted_bytes: bytes, human_bytes: bytes) -> Column:
    """(n,) each image's part of the agreement, estimated from REFERENCES others; their sum is exact.

    Bytes of two (n,): the chunks of a bootstrap, and all metrics of pairs, ask for the same.
    """
    predicted, human = np.frombuffer(predicted_bytes), np.frombuffer(human_bytes)
    everything = _once(len(human))
    untied = math.sqrt(_untied_pairs(everything, predicted)[0] * _untied_pairs(everything, human)[0])
    total = kendalltau(predicted, human, method="asymptotic").statistic * untied if untied else 0.0
    others = np.random.default_rng(0).choice(len(human), REFERENCES, replace=False)
    own = np.empty(len(human))
    for start in range(0, len(human), _BLOCK):
        block = slice(start, start + _BLOCK)
        order = np.sign(predicted[block, None] - predicted[others])
        own[block] = np.einsum("br,br->b", order, np.sign(human[block, None] - human[others]))
    own *= len(human) / REFERENCES
    own += (total - own.sum()) / len(human)
    return own


def _agreement_of_all(draws: Draws, predicted: Column, human: Column, margin: float = 0.0) -> Column:
    """As `_agreement`: for each row Σ_ij w_i w_j sign(p_i − p_j) sign(h_i − h_j), where w_i counts image i in it.

    Matrix products in float32 are fast, and exact here: their sums are whole numbers up to n.
    """
    times = draws.counts.astype(np.float32)
    levels, people = _levels(predicted).astype(np.float32), _levels(human).astype(np.float32)
    total = np.zeros(len(times))
    for start in range(0, len(human), _BLOCK):
        block = slice(start, start + _BLOCK)
        signs = np.sign(levels[:, None] - levels[block]) * np.sign(people[:, None] - people[block])
        if margin:
            signs *= np.abs(human[:, None] - human[block]) > margin
        total += np.einsum("rb,rb->r", times @ signs, times[:, block], dtype=np.float64)
    return total


def _untied_pairs(draws: Draws, column: Column) -> Column:
    """(R,) pairs that differ; each pair counts twice."""
    levels = _levels(column)
    count = int(levels.max()) + 1
    tied = draws.counts if count == len(column) else draws.counts @ _sums_by(levels, count)
    untied: Column = len(column) ** 2 - np.einsum("rl,rl->r", tied, tied)
    return untied


def _sums_by(labels: NDArray[np.int64], kinds: int) -> csr_array:
    """(n, kinds), of which a product with (R, n) sums the columns of each label."""
    return csr_array((np.ones(len(labels)), labels, np.arange(len(labels) + 1)), shape=(len(labels), kinds))


def _once(images: int) -> Draws:
    """Every image once: the images as they are."""
    return Draws(np.arange(images)[None])


def _levels(column: Column) -> NDArray[np.int64]:
    return np.unique(column, return_inverse=True)[1].astype(np.int64)


def _tally(labels: Indices, kinds: int) -> NDArray[np.int64]:
    """(R, n) labels → (R, kinds): the count of each label in each row."""
    offsets = np.arange(len(labels), dtype=np.int64)[:, None] * kinds
    return np.bincount((labels + offsets).ravel(), minlength=len(labels) * kinds).reshape(len(labels), kinds)


plcc = Metric("plcc", "PLCC ↑", _plcc, compared=True)
srcc = Metric("srcc", "SRCC ↑", _srcc, compared=True)
krcc = Metric("krcc", "KRCC ↑", _krcc)
pair_accuracy = Metric("pair_accuracy", "pair accuracy ↑", _pair_accuracy)
mae = Metric("mae", "MAE ↓", _mae, higher_is_better=False, compared=True, ordered=False)
rmse = Metric("rmse", "RMSE ↓", _rmse, higher_is_better=False, ordered=False)
calibration_error = Metric(
    "calibration_error", "calibration error ↓", _calibration_error, higher_is_better=False, ordered=False
)
plcc_logistic = Metric("plcc_logistic", "PLCC, logistic ↑", _plcc, mapped=logistic_fit)

METRICS = (plcc, srcc, krcc, pair_accuracy, mae, rmse, calibration_error, plcc_logistic)
"""Every metric, in the order of the tables. A new metric is a function (draws, predicted, human) and an entry."""

PAIR_GAPS = {"up to 0.1": (0.0, 0.1), "0.1 to 0.25": (0.1, 0.25), "above 0.25": (0.25, math.inf)}
"""Difficulties of pairs: how far apart people rate the two, on the 0–1 scale (above, up to)."""
PAIRS_BY_DIFFICULTY = {
    name: Metric(name, name, partial(_pair_accuracy, margin=low, limit=high)) for name, (low, high) in PAIR_GAPS.items()
}
