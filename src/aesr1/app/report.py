"""The HTML page of predictions: pictures, scores and reasons in one file."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from aesr1.contract import LEVEL_BOUNDS, LEVELS, level_of
from aesr1.errors import AesError
from aesr1.html_page import InlineThumbnail, distinct, fold, inline_thumbnail, is_page, render_page, short_names
from aesr1.json_lines import read_rows
from aesr1.outputs import replaced_file
from aesr1.records import Prediction, Rating

GENERATOR = "aesr1 report"
TEMPLATE = Path(__file__).parent / "templates" / "report.html.j2"
NO_LEVEL = "none"
BINS = 20
FULL_PAGE = 600
"""A page with fewer pictures than this embeds them larger, up to the same number of pixels in all."""
LARGEST_GROWTH = 4.0
THUMBNAIL_BOUNDS = (32, 4096)
TOY = "tiny"


class ReportSummary(NamedTuple):
    """What a report holds, in pictures."""

    pictures: int
    failed: int  # no score
    unreadable: int  # scored although the reply broke the contract
    missing: int  # shown as a placeholder
    rated: int  # with a human score beside


class Bar(NamedTuple):
    """One bar of the histogram."""

    low: float
    high: float
    level: str
    pictures: int
    height: float  # percent of the highest bar


@dataclass(frozen=True)
class PredictionCard:
    """What a page shows of one prediction."""

    number: int  # place in the predictions file, from 1
    name: str
    prediction: Prediction
    picture: InlineThumbnail
    level: str  # of the contract, or NO_LEVEL
    human: float | None  # 0–1
    difference: float | None  # of the score from the human one
    problem: str | None
    lead: str
    rest: str


def write_report(
    predictions: Path,
    output: Path,
    *,
    ratings: Path | None = None,
    title: str = "Aesthetic report",
    thumbnail_pixels: int = 320,
) -> ReportSummary:
    """Write a page of every prediction, best first; returns what it holds.

    `thumbnail_pixels` is the least longest side of an embedded picture, in pixels; a page of few pictures embeds
    them up to four times as large, so that enlarging one shows more. One picture at a time is in memory.
    """
    if output.exists() and not is_page(output, GENERATOR):
        raise AesError(
            f"{output} exists and is not an aesr1 report", fix="choose another name; only reports are replaced"
        )
    low, high = THUMBNAIL_BOUNDS
    if not low <= thumbnail_pixels <= high:
        raise AesError(
            f"a thumbnail of {thumbnail_pixels} pixels", fix=f"choose a longest side from {low} to {high} pixels"
        )
    rows = _read_predictions(predictions)
    people = _read_human_scores(ratings, rows) if ratings else {}
    missing: list[str] = []
    context = {
        **_head(rows, people),
        "title": title,
        "cards": _cards(rows, people, side=_side(thumbnail_pixels, len(rows)), missing=missing),
    }
    with replaced_file(output) as part:
        render_page(part, TEMPLATE, GENERATOR, context)
    scored = [row for row in rows if row.score is not None]
    return ReportSummary(
        pictures=len(rows),
        failed=len(rows) - len(scored),
        unreadable=sum(bool(row.reply) and not row.readable for row in scored),
        missing=len(missing),
        rated=sum(row.image in people for row in rows),
    )


def _read_predictions(path: Path) -> list[Prediction]:
    rows = [replace(row, image=os.path.normpath(row.image)) for row in read_rows(path, Prediction)]
    if not rows:
        raise AesError(f"{path} holds no predictions", fix="score some pictures first")
    for number, row in enumerate(rows, start=1):
        for name, value in (("score", row.score), ("score_std", row.score_std)):
            if value is not None and not (isinstance(value, (int, float)) and 0 <= value <= 1):
                raise AesError(
                    f"{path}, prediction {number} has the {name} {value!r}",
                    fix="score and score_std are numbers from 0 to 1, or null where there is none",
                )
    return rows


def _read_human_scores(path: Path, rows: Sequence[Prediction]) -> dict[str, float]:
    """Human score by image, of the predicted images alone. AesError where not one of them is rated."""
    wanted = {row.image for row in rows}
    rated = ((os.path.normpath(rating.image), rating.score) for rating in read_rows(path, Rating))
    people = {image: score for image, score in rated if image in wanted}
    if not people:
        raise AesError(f"{path} rates none of the predicted pictures", fix="leave the ratings out, or give theirs")
    return people


def _head(rows: Sequence[Prediction], people: dict[str, float]) -> dict[str, object]:
    """What the page shows above the pictures."""
    scores = [row.score for row in rows if row.score is not None]
    differences = [abs(row.score - people[row.image]) for row in rows if row.score is not None and row.image in people]
    levels = [level_of(score) for score in scores]
    models = distinct(row.model for row in rows)
    return {
        "pictures": len(rows),
        "scored": len(scores),
        "unreadable": sum(bool(row.reply) and not row.readable for row in rows if row.score is not None),
        "mean": sum(scores) / len(scores) if scores else None,
        "rated": len(differences),
        "mean_difference": sum(differences) / len(differences) if differences else None,
        "toy": TOY in models,
        "provenance": (
            ("Model", models),
            ("Revision", distinct(row.revision for row in rows)),
            ("Contract", distinct(f"version {row.contract}" for row in rows)),
            ("aesr1", distinct(row.aesr1 for row in rows)),
        ),
        "levels": [(level, levels.count(level)) for level in reversed(LEVELS)],
        "level_bounds": LEVEL_BOUNDS,
        "bars": _histogram(scores),
        "any_score_std": any(row.score_std is not None for row in rows),
    }


def _histogram(scores: Sequence[float]) -> list[Bar]:
    """BINS bars of equal width over 0–1, the highest of them 100 % high; a score of 1 falls in the last."""
    # The small amount corrects rounding: 0.7 × 20 is 13.999…
    places = [min(BINS - 1, int(score * BINS + 1e-9)) for score in scores]
    counts = [places.count(place) for place in range(BINS)]
    highest = max(1, *counts)
    return [
        Bar(place / BINS, (place + 1) / BINS, level_of((place + 0.5) / BINS), count, 100 * count / highest)
        for place, count in enumerate(counts)
    ]


def _cards(
    rows: Sequence[Prediction], people: dict[str, float], *, side: int, missing: list[str]
) -> Iterator[PredictionCard]:
    """A card a row, best score first, the failed last; the names of pictures that cannot be shown go to `missing`."""
    names = short_names([row.image for row in rows])
    numbered = [(number, names[row.image], row) for number, row in enumerate(rows, start=1)]
    numbered.sort(key=lambda entry: (entry[2].score is None, -(entry[2].score or 0.0), entry[1]))
    console = Console(stderr=True)
    for number, name, row in track(numbered, "pictures", console=console, disable=not sys.stderr.isatty()):
        picture = inline_thumbnail(row.image, name, side)
        if not picture.source:
            missing.append(name)
        problem = row.error.replace(row.image, name) if row.error else None
        lead, rest = fold(row.reasoning or "")
        human = people.get(row.image)
        yield PredictionCard(
            number=number,
            name=name,
            prediction=row,
            picture=picture,
            level=NO_LEVEL if row.score is None else level_of(row.score),
            human=human,
            difference=None if row.score is None or human is None else abs(row.score - human),
            problem=problem or ("no score could be read from the reply" if row.score is None else None),
            lead=lead,
            rest=rest,
        )


def _side(thumbnail_pixels: int, pictures: int) -> int:
    growth = math.sqrt(FULL_PAGE / pictures)
    return round(thumbnail_pixels * min(LARGEST_GROWTH, max(1.0, growth)))
