"""Compares predictions with human ratings: metrics with intervals, differences between models, tables."""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np

from aesr1 import metrics
from aesr1.errors import AesError
from aesr1.metrics import METRICS, Column, Interval, Metric, RaterCeiling
from aesr1.records import Prediction, Rating

NAMES = tuple(metric.name for metric in METRICS)
COMPARED = tuple(metric.name for metric in METRICS if metric.compared)
TITLES = {metric.name: metric.title for metric in METRICS}

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
    decoding: str  # how the scores were read
    n: int
    n_scored: int
    n_readable: int
    parse_rate: Interval | None  # share of readable replies, Wilson's interval; None without replies
    scored: Agreement  # over images with a score
    imputed: Agreement  # over all images; a missing score becomes the mean of the others


@dataclass(frozen=True)
class Difference:
    """The difference of two models, over the images that both scored."""

    first: str
    second: str
    gain: Agreement  # second − first, only the metrics of COMPARED


@dataclass(frozen=True)
class Comparison:
    """Several models on the same images."""

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

    AesError if the ratings belong to no or several data sets, an image is rated or predicted twice or not predicted,
    a score is outside [0, 1], or the rows come from several models.
    """
    human, rows = human_scores(ratings), _join(ratings, predictions, name)
    scores = _scores(rows)
    scored = np.isfinite(scores)
    agreement = _agreement(scores[scored], human[scored], draws, seed)
    readable = sum(bool(row.readable) for row in rows)
    return Evaluation(
        name=name,
        model=rows[0].model,
        revision=rows[0].revision,
        decoding=rows[0].decoding,
        n=len(rows),
        n_scored=int(scored.sum()),
        n_readable=readable,
        parse_rate=metrics.wilson(readable, len(rows)) if any(row.reply for row in rows) else None,
        scored=agreement,
        imputed=agreement if scored.all() else _agreement(_filled(scores), human, draws, seed),
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
    human, names = human_scores(ratings), list(predictions)
    scores = {name: _scores(_join(ratings, rows, name)) for name, rows in predictions.items()}
    differences = []
    for first, second in [*itertools.pairwise(names), *([(names[0], names[-1])] if len(names) > 2 else [])]:
        both = np.isfinite(scores[first]) & np.isfinite(scores[second])
        gain = _agreement(scores[second][both], human[both], draws, seed, before=scores[first][both])
        differences.append(Difference(first, second, gain))
    votes = [rating.votes for rating in ratings if rating.votes is not None and sum(rating.votes) > 1]
    ceiling = metrics.rater_ceiling(votes, np.arange(len(votes[0])), seed=seed) if len(votes) > 1 else None
    return Comparison(evaluations, tuple(differences), ceiling, len(votes), draws, seed)


def to_results(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """The content of results.json: {name: metrics, counts, model}; numbers are finite or None.

    `imputed`: the metrics with missing scores filled in. `against`: the gains over earlier models, by name.
    """
    ceiling = comparison.ceiling and {name: asdict(value) for name, value in comparison.ceiling._asdict().items()}
    results = {}
    for each in comparison.evaluations:
        against = {
            difference.first: {"n": difference.gain.n, **_by_metric(difference.gain, COMPARED)}
            for difference in comparison.differences
            if difference.second == each.name
        }
        counts = {"n": each.n, "n_scored": each.n_scored, "n_readable": each.n_readable}
        results[each.name] = {
            **_by_metric(each.scored, NAMES),
            "parse_rate": each.parse_rate and asdict(each.parse_rate),
            **counts,
            "model": each.model,
            "revision": each.revision,
            "decoding": each.decoding,
            "note": each.scored.note,
            "imputed": _by_metric(each.imputed, NAMES),
            "against": against,
            "rater_ceiling": ceiling,
            "bootstrap": {"draws": comparison.draws, "seed": comparison.seed},
        }
    return results


def to_markdown(comparison: Comparison) -> str:
    """Tables of the metrics and the gains, and a note on the intervals."""
    evaluations, differences = comparison.evaluations, comparison.differences
    consecutive = differences[: len(evaluations) - 1]
    better = {(each.second, m.name) for each in consecutive for m in METRICS if _is_better(each.gain, m)}
    rows = []
    for each in evaluations:
        values = [_value(each.scored.values.get(name), bold=(each.name, name) in better) for name in NAMES]
        rows.append([_cell(each.name), f"{each.n_scored:,} of {each.n:,}", _value(each.parse_rate), *values])
    parts = [_table(["", "scored", "readable", *TITLES.values()], rows)]
    if any(each.n_scored < each.n for each in evaluations):
        rows = [[_cell(each.name), *(_value(each.imputed.values.get(name)) for name in NAMES)] for each in evaluations]
        parts.append("With each missing score filled in with the mean of the model's other scores:")
        parts.append(_table(["", *TITLES.values()], rows))
    if differences:
        rows = []
        for pair in differences:
            gains = [pair.gain.values.get(name) for name in COMPARED]
            values = [_value(gain, bold=gain is not None and gain.excludes_zero, sign="+") for gain in gains]
            rows.append([f"{_cell(pair.first)} → {_cell(pair.second)}", f"{pair.gain.n:,}", *values])
        parts.append("Differences over the images that both scored; bold where the interval excludes 0:")
        parts.append(_table(["", "images", *(TITLES[name] for name in COMPARED)], rows))
    parts += [f"{_cell(each.name)}: {each.scored.note}." for each in evaluations if each.scored.note]
    return "\n\n".join([*parts, _small_print(comparison)]) + "\n"


def human_scores(ratings: Sequence[Rating]) -> Column:
    domains = sorted({rating.domain for rating in ratings})
    if len(domains) != 1:
        raise AesError(
            f"ratings of {len(domains)} data sets ({', '.join(domains) or 'none'}) cannot be evaluated together",
            fix="evaluate one data set at a time, because their scales differ; average the results for one number",
        )
    return np.array([rating.score for rating in ratings], dtype=np.float64)


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
    sources = sorted({f"{row.model} (revision {row.revision})" for row in rows})
    if len(sources) > 1:
        raise AesError(
            f"the predictions of {name} come from {len(sources)} models: {', '.join(sources)}",
            fix="score again, into one new file for each model",
        )
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


def _scores(rows: Sequence[Prediction]) -> Column:
    return np.array([math.nan if row.score is None else row.score for row in rows], dtype=np.float64)


def _filled(scores: Column) -> Column:
    """Missing scores (NaN) become the mean of the others; empty if all are missing."""
    known = scores[np.isfinite(scores)]
    if not known.size:
        return known
    # Rounding may move the mean of equal numbers; then filled-in scores would not be tied with them.
    return np.where(np.isfinite(scores), scores, np.clip(known.mean(), known.min(), known.max()))


def _agreement(scores: Column, human: Column, draws: int, seed: int, *, before: Column | None = None) -> Agreement:
    """Metrics of (n,) scores and (n,) ratings; with the scores of an earlier model, the gains in COMPARED."""
    if len(scores) < 2:
        return Agreement(len(scores), note="fewer than two images have a score, so nothing can be measured")
    note, chosen = None, [metric for metric in METRICS if metric.compared or before is None]
    if np.ptp(human) == 0:
        note = "people rated all of these images the same, so there is no order to agree with"
        chosen = [metric for metric in METRICS if not metric.ordered]
    values: dict[str, Interval | None] = {}
    for metric in chosen:
        if before is None:
            values[metric.name] = metrics.bootstrap(metric, scores, human, draws=draws, seed=seed)
        else:
            values[metric.name] = metrics.paired_bootstrap(metric, before, scores, human, draws=draws, seed=seed)
    return Agreement(len(scores), values, note)


def _by_metric(agreement: Agreement, names: Iterable[str]) -> dict[str, dict[str, float] | None]:
    values = {name: agreement.values.get(name) for name in names}
    return {name: None if value is None else asdict(value) for name, value in values.items()}


def _is_better(gain: Agreement, metric: Metric) -> bool:
    interval = gain.values.get(metric.name)
    return interval is not None and interval.excludes_zero and (interval.value > 0) == metric.higher_is_better


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _value(interval: Interval | None, *, bold: bool = False, sign: str = "") -> str:
    if interval is None:
        return "—"
    value = f"{interval.value:{sign}.3f}"
    return f"{f'**{value}**' if bold else value} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def _small_print(comparison: Comparison) -> str:
    n, draws, ceiling = comparison.evaluations[0].n, comparison.draws, comparison.ceiling
    readings = " or ".join(sorted({each.decoding for each in comparison.evaluations}))
    text = (
        f"Scores read by {readings}. {n:,} images; [95 % intervals] from {draws:,} bootstrap draws over images (KRCC, "
        f"pair accuracy: {metrics.pair_draws(n, draws):,}), seed {comparison.seed}; of the readable share, Wilson's."
    )
    if comparison.differences:
        text += " Bold: better than the row before, the interval of the paired difference excluding 0."
    if ceiling:
        text += f" A second panel of as many raters would reach PLCC {_value(ceiling.plcc)}, "
        text += f"SRCC {_value(ceiling.srcc)} ({comparison.ceiling_n:,} images with votes)."
    return text
