"""Agreement of scores with people: one table of metrics, each over many draws of the images. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import expit
from scipy.stats import kendalltau, rankdata

from aesr1.errors import AesError

Column = NDArray[np.float64]
Grid = NDArray[np.float64]
Indices = NDArray[np.integer]
Scores = ArrayLike

MOST_PAIRED, REFERENCES = 5_000, 1_000
"""Up to so many images all pairs are counted, and all ranks taken, in every draw. Beyond, a draw counts each image's
own agreement with so many others, and ranks and ties change to first order, which changes an interval by 1 or 2 %; the
value itself is exact."""
_BLOCK = 512  # columns in a block of pairs: limits memory


@dataclass(frozen=True)
class Draws:
    """R draws of the n images, with replacement, as all metrics use them."""

    indices: Indices  # (R, n)

    @cached_property
    def counts(self) -> Grid:
        """(R, n): how often each image was drawn. A product with it is faster than a look at the drawn values."""
        return _tally(self.indices, self.indices.shape[1])


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
        first, people = checked_columns(predicted, human, ordered=self.ordered)
        first = self.mapped(first, people) if self.mapped else first
        return float(self.rows(_once(len(people)), first, people, **options)[0])


def checked_columns(predicted: Scores, human: Scores, *, ordered: bool = False) -> tuple[Column, Column]:
    """Both as checked (n,) arrays. AesError as `Metric`."""
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


def pearson(predicted: Grid, human: Grid) -> Column:
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
    values[flat] = pearson(predicted[drawn], human[drawn])
    return values


def _srcc(draws: Draws, predicted: Column, human: Column) -> Column:
    """Spearman's rank correlation; ties get their average rank. A constant predictor gets 0."""
    if len(human) <= MOST_PAIRED or not np.ptp(predicted) or not np.ptp(human):
        return pearson(_drawn_ranks(draws.indices, predicted), _drawn_ranks(draws.indices, human))
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
        own = _own_bins(predicted.tobytes(), bins)
        sums: Grid = np.stack([np.bincount(own, weights=times * gaps, minlength=bins) for times in draws.counts])
    else:
        cells = _bins(_drawn_ranks(draws.indices, predicted), bins) + np.arange(len(draws.indices))[:, None] * bins
        flat = np.bincount(cells.ravel(), gaps[draws.indices].ravel(), minlength=len(cells) * bins)
        sums = flat.astype(np.float64).reshape(-1, bins)
    errors: Column = np.abs(sums).sum(axis=1) / images
    return errors


@lru_cache(maxsize=4)
def _own_bins(predicted_bytes: bytes, bins: int) -> NDArray[np.int64]:
    """(n,) the bin of each image among all images."""
    return _bins(rankdata(np.frombuffer(predicted_bytes)), bins)


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
    own = _agreement_with(predicted[others], human[others], predicted, human) * (len(human) / REFERENCES)
    own += (total - own.sum()) / len(human)
    return own


def _agreement_with(first: Column, second: Column, predicted: Column, human: Column) -> Column:
    """(n,) Σ_j sign(p_i − f_j) sign(h_i − s_j) over the m others (f_j, s_j), from a table of (m + 1)² counts."""
    of_first, of_second = np.sort(first), np.sort(second)
    below = np.zeros((len(first) + 1, len(first) + 1), dtype=np.int32)  # others among the k lowest f and the l lowest s
    below[rankdata(first, "ordinal"), rankdata(second, "ordinal")] = 1
    below = below.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)
    lower, not_higher = (np.searchsorted(of_first, predicted, side) for side in ("left", "right"))
    less, not_more = (np.searchsorted(of_second, human, side) for side in ("left", "right"))
    same_side = below[lower, less] + below[lower, not_more] + below[not_higher, less] + below[not_higher, not_more]
    agreement: Column = (same_side + len(first) - lower - not_higher - less - not_more).astype(np.float64)
    return agreement


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
    if len(column) > MOST_PAIRED:
        own = _own_ties(column.tobytes())
        tied = 2 * (draws.counts @ own) - own.sum()  # Σ_l t_l², t_l the count of level l, near w = 1
    else:
        levels = _levels(column)
        times = _tally(levels[draws.indices], int(levels.max()) + 1)
        tied = np.einsum("rl,rl->r", times, times)
    untied: Column = len(column) ** 2 - tied
    return untied


@lru_cache(maxsize=4)
def _own_ties(column_bytes: bytes) -> Column:
    """(n,) the number of images with each image's value, itself among them."""
    levels = _levels(np.frombuffer(column_bytes))
    return np.bincount(levels).astype(np.float64)[levels]


def _once(images: int) -> Draws:
    """Every image once: the images as they are."""
    return Draws(np.arange(images)[None])


def _levels(column: Column) -> NDArray[np.int64]:
    return np.unique(column, return_inverse=True)[1].astype(np.int64)


def _tally(labels: Indices, kinds: int) -> Grid:
    """(R, n) labels → (R, kinds): the count of each label in each row."""
    counts = np.empty((len(labels), kinds))
    for row, own in zip(counts, labels, strict=True):  # a row at a time stays in the processor's cache
        row[:] = np.bincount(own, minlength=kinds)
    return counts


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
