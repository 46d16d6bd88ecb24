"""Compares predictions with human ratings: metrics with intervals, differences between models. Pure functions."""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from aesr1 import intervals
from aesr1.errors import AesError
from aesr1.intervals import Interval, RaterCeiling
from aesr1.metrics import METRICS, PAIR_GAPS, PAIRS_BY_DIFFICULTY, Column, Metric
from aesr1.records import Prediction, Rating

MOST_BY_DIFFICULTY = 2_000
"""Images of a set whose pairs are counted by difficulty, drawn with a seed."""
COMPARED = tuple(metric.name for metric in METRICS if metric.compared)

Row = TypeVar("Row", Rating, Prediction)


@dataclass(frozen=True)
class Agreement:
    """The metrics over some rows, by name; None where a metric has no value, and then `note` says why."""

    n: int
    values: Mapping[str, Interval | None] = field(default_factory=dict)
    note: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """The result of one model."""

    name: str
    model: str
    revision: str
    decoding: str  # how the scores were read; several ways are joined by "or"
    n: int
    n_scored: int
    n_readable: int
    parse_rate: Interval | None  # share of readable replies, Wilson's interval; None without replies
    scored: Agreement  # over images with a score
    imputed: Agreement  # over all images; a missing score becomes the mean of the others
    pairs: Agreement  # accuracy of pairs by difficulty, over up to MOST_BY_DIFFICULTY images of each set with a score


@dataclass(frozen=True)
class Difference:
    """The difference of two models, over the images that both scored."""

    first: str
    second: str
    gain: Agreement  # second − first, only the metrics of COMPARED


@dataclass(frozen=True)
class Comparison:
    """Several models on the same images; over several data sets, the means of what each set gives."""

    domains: tuple[str, ...]  # the data sets
    evaluations: tuple[Evaluation, ...]
    differences: tuple[Difference, ...]  # of neighbours, and with three models or more also last − first
    ceiling: RaterCeiling | None
    ceiling_n: int  # images with two votes or more
    draws: int
    seed: int


def evaluate(
    ratings: Sequence[Rating], predictions: Sequence[Prediction], *, name: str, draws: int = 2000, seed: int = 0
) -> Evaluation:
    """Compare predictions with ratings, joined by image path. Predictions of other images are ignored.

    Scores of several data sets are never put together, because their scales differ: the metrics are then the means of
    what each set gives. AesError if there are no ratings, an image is rated twice in a set or predicted twice or not
    predicted, a score is outside [0, 1], or the rows come from several models.
    """
    rows = {domain: _join(rated, predictions, name) for domain, rated in by_domain(ratings).items()}
    every = [row for of_set in rows.values() for row in of_set]
    sources = sorted({f"{row.model} (revision {row.revision})" for row in every})
    if len(sources) > 1:
        raise AesError(
            f"the predictions of {name} come from {len(sources)} models: {', '.join(sources)}",
            fix="score again, into one new file for each model",
        )
    sets = {domain: (_scores(rows[domain]), _human(rated)) for domain, rated in by_domain(ratings).items()}
    scored = {
        domain: tuple(column[np.isfinite(scores)] for column in (scores, human))
        for domain, (scores, human) in sets.items()
    }
    filled = {domain: (filled_scores(scores), human) for domain, (scores, human) in sets.items()}
    agreement = _agreement(scored, draws, seed)
    readable = sum(bool(row.readable) for row in every)
    ways = {row.decoding for row in every if row.score is not None} or {every[0].decoding}
    return Evaluation(
        name=name,
        model=every[0].model,
        revision=every[0].revision,
        decoding=" or ".join(sorted(ways)),
        n=len(every),
        n_scored=agreement.n,
        n_readable=readable,
        parse_rate=intervals.wilson(readable, len(every)) if any(row.reply for row in every) else None,
        scored=agreement,
        imputed=agreement if agreement.n == len(every) else _agreement(filled, draws, seed),
        pairs=_by_difficulty(scored, draws, seed),
    )


def compare(
    ratings: Sequence[Rating], predictions: Mapping[str, Sequence[Prediction]], *, draws: int = 2000, seed: int = 0
) -> Comparison:
    """Compare models on the same images, in the order of the mapping. AesError as in `evaluate`, or on no models."""
    if not predictions:
        raise AesError("there are no predictions to compare", fix="give at least one set of predictions")
    evaluations = tuple(
        evaluate(ratings, rows, name=name, draws=draws, seed=seed) for name, rows in predictions.items()
    )
    names = list(predictions)
    sets = {name: _columns(ratings, rows, name) for name, rows in predictions.items()}
    differences = []
    for first, second in [*itertools.pairwise(names), *([(names[0], names[-1])] if len(names) > 2 else [])]:
        both = {}
        for domain, (after, human) in sets[second].items():
            before = sets[first][domain][0]
            known = np.isfinite(before) & np.isfinite(after)
            both[domain] = (before[known], after[known], human[known])
        differences.append(Difference(first, second, _agreement(both, draws, seed)))
    domains = tuple(by_domain(ratings))
    votes = [rating.votes for rating in ratings if rating.votes is not None and sum(rating.votes) > 1]
    one_scale = len(domains) == 1 and len(votes) > 1
    ceiling = intervals.rater_ceiling(votes, np.arange(len(votes[0])), seed=seed) if one_scale else None
    return Comparison(domains, evaluations, tuple(differences), ceiling, len(votes), draws, seed)


def by_domain(ratings: Sequence[Rating]) -> dict[str, list[Rating]]:
    """The ratings of each data set, by name. AesError where there are none."""
    if not ratings:
        raise AesError("there are no ratings to compare with", fix="give the ratings of at least one data set")
    sets: dict[str, list[Rating]] = {domain: [] for domain in sorted({rating.domain for rating in ratings})}
    for rating in ratings:
        sets[rating.domain].append(rating)
    return sets


def _columns(
    ratings: Sequence[Rating], predictions: Sequence[Prediction], name: str
) -> dict[str, tuple[Column, Column]]:
    """(n,) scores, NaN where there is none, and (n,) human scores of each data set."""
    return {
        domain: (_scores(_join(rated, predictions, name)), _human(rated))
        for domain, rated in by_domain(ratings).items()
    }


def _join(ratings: Sequence[Rating], predictions: Sequence[Prediction], name: str) -> list[Prediction]:
    """The prediction for each rating, in the order of the ratings."""
    rated, predicted = _by_image(ratings, "the ratings"), _by_image(predictions, f"the predictions of {name}")
    missing = [image for image in rated if image not in predicted]
    if missing:
        raise AesError(
            f"{len(missing):,} of {len(rated):,} rated images have no prediction of {name}, first: {missing[0]}",
            fix="score them too, or choose the split that was scored; both files must use the same image paths",
        )
    rows = [predicted[image] for image in rated]
    for row in rows:
        if row.score is not None and not 0 <= row.score <= 1:
            raise AesError(f"{name} scores {row.image} as {row.score}", fix="give a score in [0, 1], or null")
    return rows


def _by_image(rows: Sequence[Row], where: str) -> dict[str, Row]:
    # A relative path may contain "..", so one image can have two spellings.
    images = [os.path.normpath(row.image) for row in rows]
    repeated = [image for image, times in Counter(images).items() if times > 1]
    if repeated:
        raise AesError(
            f"{where} name {len(repeated):,} images more than once, first: {repeated[0]}",
            fix="keep one row for each image",
        )
    return dict(zip(images, rows, strict=True))


def _human(rated: Sequence[Rating]) -> Column:
    return np.array([rating.score for rating in rated], dtype=np.float64)


def _scores(rows: Sequence[Prediction]) -> Column:
    return np.array([math.nan if row.score is None else row.score for row in rows], dtype=np.float64)


def filled_scores(scores: Column) -> Column:
    """(n,) Missing scores (NaN) become the mean of the others; empty if all are missing."""
    known = scores[np.isfinite(scores)]
    if not known.size:
        return known
    # Rounding may move the mean of equal numbers; then filled-in scores would not be tied with them.
    return np.where(np.isfinite(scores), scores, np.clip(known.mean(), known.min(), known.max()))


def _by_difficulty(sets: Mapping[str, Sequence[Column]], draws: int, seed: int) -> Agreement:
    """PAIRS_BY_DIFFICULTY over data sets of (scores, human), (n,) each; None where a set has no such pair."""
    drawn = []
    for columns in sets.values():
        chosen = np.random.default_rng(seed).permutation(len(columns[0]))[:MOST_BY_DIFFICULTY]
        drawn.append([column[chosen] for column in columns])
    gaps = [np.abs(np.subtract.outer(human, human)) for _, human in drawn]
    values: dict[str, Interval | None] = {}
    for name, metric in PAIRS_BY_DIFFICULTY.items():
        low, high = PAIR_GAPS[name]
        some = all(((gap > low) & (gap <= high)).any() for gap in gaps)
        values[name] = intervals.mean_bootstrap(metric, drawn, draws=draws, seed=seed) if some else None
    return Agreement(sum(len(human) for _, human in drawn), values)


def _agreement(sets: Mapping[str, Sequence[Column]], draws: int, seed: int) -> Agreement:
    """Metrics over data sets of (scores, human); gains in COMPARED over sets of (before, after, human). All (n,)."""
    gains = len(next(iter(sets.values()))) > 2
    n, notes = sum(len(columns[0]) for columns in sets.values()), []
    chosen: tuple[Metric, ...] = METRICS
    for domain, columns in sets.items():
        where = f"{domain}: " if len(sets) > 1 else ""
        if len(columns[0]) < 3:
            return Agreement(n, note=f"{where}fewer than three images have a score, which says nothing about an order")
        if np.ptp(columns[-1]) == 0:
            notes.append(f"{where}people rated all of these images the same, so there is no order to agree with")
            chosen = tuple(metric for metric in METRICS if not metric.ordered)
        elif not gains and np.ptp(columns[0]) == 0:
            notes.append(
                f"{where}all scores are {columns[0][0]:.3g}: they order nothing, which counts as a correlation of 0"
            )
    chosen = tuple(metric for metric in chosen if metric.compared or not gains)
    values = intervals.bootstrap_all(chosen, list(sets.values()), draws=draws, seed=seed)
    return Agreement(n, values, "; ".join(notes) or None)
