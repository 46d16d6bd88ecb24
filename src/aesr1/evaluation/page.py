"""The HTML page of an evaluation: tables, plots, and pictures with their reasons, a section for each model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aesr1.evaluation.calibration import Bin, Mean, calibration_bins, residuals
from aesr1.evaluation.compare import Evaluation
from aesr1.evaluation.datasets import Study
from aesr1.evaluation.describe import Reasons
from aesr1.evaluation.provenance import Provenance
from aesr1.evaluation.tables import Table, Value, claims_table, judged_table, notes, reasons_table, small_print, tables
from aesr1.html_page import InlineThumbnail, fold, inline_thumbnail, render_page, short_names
from aesr1.metrics import Column
from aesr1.outputs import replaced_file
from aesr1.records import Prediction, Rating

GENERATOR = "aesr1 eval"
TEMPLATE = Path(__file__).parent / "templates" / "results.html.j2"
MOST_POINTS = 2_000
"""Of more pictures the scatter shows so many, drawn with a seed."""
SHOWN = 6
"""Best, worst and most wrong pictures of each model."""
SIDE, FULL_PAGE = 224, 6
"""The longest side of a picture, in pixels; smaller with more models than FULL_PAGE, so that the page's size stays."""
MOST_LETTERS = 4_000
"""A reasoning is cut after so many letters."""

LEFT, TOP, WIDTH = 42.0, 8.0, 300.0
"""Where the square from (0, 0) to (1, 1) lies in a plot, in units of its SVG."""
SHAPES = (
    "m-2.5 0a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0-5 0",  # circle
    "m0-3.2l3 5.4h-6z",  # triangle
    "m-2.3-2.3h4.6v4.6h-4.6z",  # square
    "m0-3.4l3.4 3.4l-3.4 3.4l-3.4-3.4z",  # diamond
    "m-2.4-2.4l4.8 4.8m-4.8 0l4.8-4.8",  # cross
    "m-3 0h6m-3-3v6",  # plus
)
"""Marks of the data sets, each around its point."""
COLOURS = ("#0072b2", "#c04a00", "#00785a", "#a3457f", "#24221f")
"""Of the data sets, after Okabe and Ito, but dark enough on white. No two of the first six data sets share a shape, so
that nothing rests on colour; no two of the first thirty share both."""


class Pair(NamedTuple):
    """A rated picture and what a model said of it."""

    rating: Rating
    prediction: Prediction
    score: float
    difference: float  # predicted − human


@dataclass(frozen=True)
class Card:
    """A picture on the page."""

    name: str
    pair: Pair
    picture: InlineThumbnail
    lead: str
    rest: str


@dataclass(frozen=True)
class Series:
    """One data set in the plots of a model."""

    domain: str
    number: int  # of its shape and colour
    n: int  # pictures with a score
    points: str  # the scatter, as the path of an SVG
    bins: list[Bin]
    residuals: dict[str, Mean]


@dataclass(frozen=True)
class Section:
    """What the page shows of one model."""

    evaluation: Evaluation
    agreement: list[str]  # PLCC and SRCC with intervals, of each data set
    series: list[Series]
    drawn: int  # points of the scatter
    reach: float  # the largest end of an interval of the residuals, from 0.1 to 1
    pictures: list[tuple[str, list[Card]]]
    reasons: list[tuple[str, str | Value]]  # measure and value
    claims: Table | None
    judged: Table | None


def write_page(
    output: Path,
    study: Study,
    ratings: Sequence[Rating],
    predictions: Mapping[str, Sequence[Prediction]],
    reasons: Mapping[str, Reasons | None],
    made_with: Provenance,
    *,
    pool: Executor | None = None,
) -> None:
    """Write one self-contained page about the models of a study, which come in the order of `predictions`.

    `reasons`: what the reasons of each model are like (`describe`). `pool` opens the pictures; None opens one at a
    time. A picture that cannot be opened is a placeholder that says so.
    """
    names = short_names([rating.image for rating in ratings])
    side = int(SIDE * min(1.0, FULL_PAGE / len(predictions)) ** 0.5)
    pairs = {name: scored_pairs(ratings, rows) for name, rows in predictions.items()}
    chosen = {name: chosen_pairs(each) for name, each in pairs.items()}
    images = {pair.rating.image for groups in chosen.values() for group in groups.values() for pair in group}
    pictures = _thumbnails(sorted(images), names, side, pool)
    context = {
        "study": study,
        "images": len(names),
        "tables": tables(study),
        "notes": [*notes(study), small_print(study)],
        "sections": [
            _section(study, name, pairs[name], chosen[name], reasons, partial(_card, names=names, pictures=pictures))
            for name in predictions
        ],
        "made_with": made_with,
        "most_points": MOST_POINTS,
        "colours": COLOURS,
        "shapes": SHAPES,
        "box": (LEFT, TOP, WIDTH),
        "across": across,
        "up": up,
    }
    with replaced_file(output) as part:
        render_page(part, TEMPLATE, GENERATOR, context)


def scored_pairs(ratings: Sequence[Rating], predictions: Sequence[Prediction]) -> list[Pair]:
    """Each rating with its prediction, joined by image path, without those that have no score."""
    rows = {os.path.normpath(row.image): row for row in predictions}
    joined = ((rating, rows[os.path.normpath(rating.image)]) for rating in ratings)
    return [Pair(rating, row, row.score, row.score - rating.score) for rating, row in joined if row.score is not None]


def chosen_pairs(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """The pictures to show: SHOWN of the highest scores, the lowest, and the largest differences to people."""
    orders: dict[str, Callable[[Pair], float]] = {
        "Rated best": lambda pair: -pair.score,
        "Rated worst": lambda pair: pair.score,
        "Most wrong": lambda pair: -abs(pair.difference),
    }
    return {title: sorted(pairs, key=order)[:SHOWN] for title, order in orders.items()}


def across(value: float) -> float:
    """A value of 0–1 as x in a plot."""
    return round(LEFT + WIDTH * value, 1)


def up(value: float) -> float:
    """A value of 0–1 as y in a plot."""
    return round(TOP + WIDTH * (1 - value), 1)


def marks(points: Iterable[tuple[float, float]], number: int) -> str:
    """The path of an SVG that draws the mark of a data set at each point (x, y), 0–1."""
    return "".join(f"M{across(x):g} {up(y):g}{SHAPES[number % len(SHAPES)]}" for x, y in points)


def _section(
    study: Study,
    name: str,
    pairs: Sequence[Pair],
    chosen: Mapping[str, Sequence[Pair]],
    reasons: Mapping[str, Reasons | None],
    card: Callable[[Pair], Card],
) -> Section:
    evaluation = next(each for each in study.means["all"].evaluations if each.name == name)
    points = sorted(np.random.default_rng(0).permutation(len(pairs))[:MOST_POINTS].tolist())
    series = [_series(number, domain, pairs, points) for number, domain in enumerate(study.datasets)]
    means = [mean for each in series for mean in each.residuals.values()]
    ends = [abs(end) for mean in means if mean.interval for end in (mean.interval.low, mean.interval.high)]
    said = reasons_table({name: reasons.get(name)})
    return Section(
        evaluation=evaluation,
        agreement=[
            f"{domain}: {_agreement(each)}" if len(study.datasets) > 1 else _agreement(each)
            for domain, comparison in study.datasets.items()
            for each in comparison.evaluations
            if each.name == name
        ],
        series=series,
        drawn=len(points),
        reach=min(1.0, max([0.1, *ends, *(abs(mean.value) for mean in means)])),
        pictures=[(title, [card(pair) for pair in group]) for title, group in chosen.items()],
        reasons=list(zip(said.head[said.labels :], said.rows[0][said.labels :], strict=True)) if said else [],
        claims=claims_table({name: reasons.get(name)}),
        judged=judged_table({name: reasons.get(name)}),
    )


def _series(number: int, domain: str, pairs: Sequence[Pair], points: Sequence[int]) -> Series:
    own = [pair for pair in pairs if pair.rating.domain == domain]
    drawn = ((pairs[i].rating.score, pairs[i].score) for i in points if pairs[i].rating.domain == domain)
    predicted = np.array([pair.score for pair in own], dtype=np.float64)
    human: Column = np.array([pair.rating.score for pair in own], dtype=np.float64)
    return Series(
        domain=domain,
        number=number,
        n=len(own),
        points=marks(drawn, number),
        bins=calibration_bins(predicted, human),
        residuals=residuals(predicted, human),
    )


def _agreement(evaluation: Evaluation) -> str:
    """PLCC and SRCC with their intervals."""
    found = ((title, evaluation.scored.values.get(name)) for name, title in (("plcc", "PLCC"), ("srcc", "SRCC")))
    return ", ".join(
        f"{title} {value.value:.3f} [{value.low:.3f}, {value.high:.3f}]" if value else f"{title} —"
        for title, value in found
    )


def _thumbnails(
    images: Sequence[str], names: Mapping[str, str], side: int, pool: Executor | None
) -> dict[str, InlineThumbnail]:
    short = [names[image] for image in images]
    found = (pool.map if pool else map)(inline_thumbnail, images, short, repeat(side, len(images)))
    return dict(zip(images, found, strict=True))


def _card(pair: Pair, *, names: Mapping[str, str], pictures: Mapping[str, InlineThumbnail]) -> Card:
    text = (pair.prediction.reasoning or "").strip()
    lead, rest = fold(text[:MOST_LETTERS] + ("…" if len(text) > MOST_LETTERS else ""))
    image = pair.rating.image
    return Card(names[image], pair, pictures[image], lead, rest)
