"""The training curves of several runs as one HTML page or PNG."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from aesr1.app.curve_panels import DOTTED, LOGS_SMOOTHED, REST, Points, Section, points, sections, shown, ticks
from aesr1.app.curve_png import COLOURS, SOFTWARE, write_png
from aesr1.app.run_files import Run, read_run
from aesr1.errors import AesError
from aesr1.html_page import InlineThumbnail, inline_thumbnail, is_page, render_page, short_names
from aesr1.outputs import replaced_file
from aesr1.records import SampledReply
from aesr1.terminal import say
from aesr1.training.alarms import LogRow

GENERATOR = "aesr1 curves"
TEMPLATE = Path(__file__).parent / "templates" / "curves.html.j2"
OVERVIEW = ("loss", "reward", "readable", "kl", "validation/srcc")
SIDE = 320
REPLIES = 10
"""Of more validations than this, the first, the last and some between are shown."""
BOX = (46, 8, 312, 134)
"""Left, top, right, bottom of a panel's axes in its drawing of 320 × 176; of a score's it is SCORE_BOX."""
SCORE_BOX = (4, 4, 216, 52)


class RunReplies(NamedTuple):
    """The replies of one run about one image, over the steps."""

    run: int
    replies: list[SampledReply]
    scores: str  # its readable scores as a path of SVG


class SampledImage(NamedTuple):
    """A held-out image and the replies about it."""

    name: str
    picture: InlineThumbnail
    rating: float
    strips: list[RunReplies]


def draw_curves(folders: Sequence[Path], output: Path | None = None) -> Path:
    """Draw the figures of runs, finished or not, as a page or a PNG.

    Returns the file, by default curves.html in the first run.

    Broken rows of a run's files are left out, with a warning. AesError where a folder has no figures, or the output
    is not a file of ours.
    """
    output = output or folders[0] / "curves.html"
    if output.suffix not in (".html", ".png"):
        raise AesError(f"{output} is neither a page nor a picture", fix="name it .html or .png")
    if len(folders) > len(COLOURS):
        raise AesError(f"{len(folders)} runs in one picture", fix=f"draw {len(COLOURS)} at a time at most")
    if output.exists() and not _is_ours(output):
        raise AesError(
            f"{output} exists and holds no aesr1 curves", fix="choose another name; only curves are replaced"
        )
    runs = [read_run(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    all_sections = sections([run.rows for run in runs], [run.alarms or [] for run in runs])
    if not all_sections:
        problems = [problem for run in runs for problem in run.problems]
        raise AesError(
            ": ".join(["these runs have logged no number that can be drawn", *problems[:1]]),
            fix="look at their figures.jsonl; a run whose first loss is NaN has nothing else to show",
        )
    for problem in (problem for run in runs for problem in run.problems):
        say(problem)
    with replaced_file(output) as part:
        if output.suffix == ".png":
            write_png([run.name for run in runs], all_sections, part)
        else:
            render_page(part, TEMPLATE, GENERATOR, _context(runs, all_sections))
    return output


def _is_ours(output: Path) -> bool:
    if output.suffix == ".html":
        return is_page(output, GENERATOR)
    try:
        with Image.open(output) as picture:
            return picture.info.get("Software") == SOFTWARE
    except OSError:
        return False


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with parent folders where needed to tell them apart."""
    paths = [folder.absolute() for folder in folders]
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    above = os.path.commonpath([path.parent for path in paths])
    return [os.path.relpath(path, above) for path in paths]


def _context(runs: Sequence[Run], all_sections: Sequence[Section]) -> dict[str, Any]:
    last = max(1, *(run.steps for run in runs))
    checked = any(run.alarms is not None for run in runs)
    names = [name for name in OVERVIEW if any(points(run.rows, name).steps for run in runs)]
    titles = {panel.name: panel.title for section in all_sections for panel in section.panels}
    return {
        "title": "Training curves" if len(runs) > 1 else f"Training curves of {runs[0].name}",
        "runs": runs,
        "colours": COLOURS,
        "overview": [(titles[name], [_first_and_last(run.rows, name) for run in runs]) for name in names],
        "alarms": sorted(
            ((number, alarm) for number, run in enumerate(runs) for alarm in run.alarms or []),
            key=lambda numbered: (numbered[0], numbered[1].step),
        ),
        "unchecked": [run.name for run in runs if run.alarms is None] if checked else [],
        "checked": checked,
        "titles": {alarm: titles.get(alarm, alarm) for run in runs for alarm in (a.name for a in run.alarms or [])},
        "sections": all_sections,
        "rest": REST,
        "box": BOX,
        # An alarm's step may be after the last figures, if those were cut off.
        "x": lambda step: f"{_across(min(step, last), last):.1f}",
        "y": lambda value, panel: f"{_down(value, panel.low, panel.high):.1f}",
        "path": lambda curve, panel: _path(curve, BOX, last=last, low=panel.low, high=panel.high),
        "steps": ticks(0, last, min(4, last)),
        "shown": shown,
        "data": {
            "last": last,
            "box": BOX,
            "panels": [
                [
                    [curve.run, [f"{step:g}" for step in curve.raw.steps], [shown(v) for v in curve.raw.values]]
                    for curve in panel.curves
                ]
                for section in all_sections
                for panel in section.panels
            ],
        },
        "sampled": _sampled(runs, last),
        "smoothed": LOGS_SMOOTHED,
        "dotted": DOTTED,
        "zip": zip,
        "score_box": SCORE_BOX,
        "score_y": lambda value: f"{_down(value, 0, 1, SCORE_BOX):.1f}",
    }


def _first_and_last(rows: Sequence[LogRow], name: str) -> tuple[str, str] | None:
    values = points(rows, name).values
    return (shown(values[0]), shown(values[-1])) if values else None


def _across(step: float, last: float, box: tuple[int, int, int, int] = BOX) -> float:
    return box[0] + (box[2] - box[0]) * step / last


def _down(value: float, low: float, high: float, box: tuple[int, int, int, int] = BOX) -> float:
    return box[3] - (box[3] - box[1]) * (value - low) / (high - low)


def _path(curve: Points, box: tuple[int, int, int, int], *, last: float, low: float, high: float) -> str:
    places = (
        f"{_across(step, last, box):.1f} {_down(value, low, high, box):.1f}"
        for step, value in zip(curve.steps, curve.values, strict=True)
    )
    return "M" + "L".join(places)


def _sampled(runs: Sequence[Run], last: int) -> Iterator[SampledImage]:
    """The images that replies were kept of, one picture in memory at a time."""
    images = list(dict.fromkeys(reply.image for run in runs for reply in run.replies))
    for image, name in short_names(images).items():
        strips, rating = [], 0.0
        for number, run in enumerate(runs):
            replies = [reply for reply in run.replies if reply.image == image]
            if replies:
                rating = replies[0].rating
                scored = [(reply.step, reply.score) for reply in replies if reply.score is not None]
                curve = Points([float(step) for step, _ in scored], [score for _, score in scored])
                path = _path(curve, SCORE_BOX, last=last, low=0, high=1) if scored else ""
                strips.append(RunReplies(number, _chosen(replies), path))
        yield SampledImage(name, inline_thumbnail(image, name, SIDE), rating, strips)


def _chosen(replies: list[SampledReply]) -> list[SampledReply]:
    """REPLIES of them at most, evenly over the run, with the first and the last."""
    if len(replies) <= REPLIES:
        return replies
    return [replies[round(place * (len(replies) - 1) / (REPLIES - 1))] for place in range(REPLIES)]
