"""The training curves of several runs as one HTML page or PNG."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from aesr1.app.curve_panels import DOTTED, LOGS_SMOOTHED, REST, Points, Section, points, sections, shown, ticks
from aesr1.app.curve_png import COLOURS, SOFTWARE, write_png
from aesr1.app.run_files import Run, read_run
from aesr1.errors import AesError
from aesr1.html_page import inline_thumbnail, page_template
from aesr1.records import SampledReply
from aesr1.training.alarms import LogRow

MARKER = '<meta name="generator" content="aesr1 curves">'
"""In the head of every page. A file without it is not ours and is not overwritten."""
HEAD_BYTES = 1024
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
    source: str  # data URL; empty where the picture cannot be shown
    problem: str
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
    _check_output(output)
    runs = [read_run(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    drawn = sections([run.rows for run in runs], [run.alarms or [] for run in runs])
    if not drawn:
        problems = [problem for run in runs for problem in run.problems]
        raise AesError(
            ": ".join(["these runs have logged no number that can be drawn", *problems[:1]]),
            fix="look at their figures.jsonl; a run whose first loss is NaN has nothing else to show",
        )
    for problem in (problem for run in runs for problem in run.problems):
        print(problem, file=sys.stderr)
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = output.with_name(output.name + ".part")
    try:
        if output.suffix == ".png":
            write_png([run.name for run in runs], drawn, aside)
        else:
            # JSON can hold halves of surrogate pairs, which no file encoding knows: they become question marks.
            with aside.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
                file.writelines(_page(runs, drawn))
        aside.replace(output)
    finally:
        aside.unlink(missing_ok=True)
    return output


def _check_output(output: Path) -> None:
    if not output.exists():
        return
    if output.is_file() and output.suffix == ".html":
        with output.open("rb") as file:
            if MARKER.encode() in file.read(HEAD_BYTES):
                return
    elif output.is_file():
        try:
            with Image.open(output) as picture:
                if picture.info.get("Software") == SOFTWARE:
                    return
        except OSError:
            pass
    raise AesError(f"{output} exists and holds no aesr1 curves", fix="choose another name; only curves are replaced")


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with parent folders where needed to tell them apart."""
    paths = [folder.absolute() for folder in folders]
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    above = os.path.commonpath([path.parent for path in paths])
    return [os.path.relpath(path, above) for path in paths]


def _page(runs: Sequence[Run], drawn: Sequence[Section]) -> Iterator[str]:
    last = max(1, *(run.steps for run in runs))
    watched = [run for run in runs if run.alarms is not None]
    names = [name for name in OVERVIEW if any(points(run.rows, name).steps for run in runs)]
    titles = {panel.name: panel.title for section in drawn for panel in section.panels}
    context = {
        "marker": MARKER,
        "title": "Training curves" if len(runs) > 1 else f"Training curves of {runs[0].name}",
        "runs": runs,
        "colours": COLOURS,
        "overview": [(titles[name], [_first_and_last(run.rows, name) for run in runs]) for name in names],
        "alarms": sorted(
            ((number, alarm) for number, run in enumerate(runs) for alarm in run.alarms or []),
            key=lambda found: (found[0], found[1].step),
        ),
        "unwatched": [run.name for run in runs if run.alarms is None] if watched else [],
        "watched": bool(watched),
        "titles": {alarm: titles.get(alarm, alarm) for run in runs for alarm in (a.name for a in run.alarms or [])},
        "sections": drawn,
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
                for section in drawn
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
    return page_template(Path(__file__).parent / "templates" / "curves.html.j2").generate(context)


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
    folder = os.path.commonpath([str(Path(image).parent) for image in images]) if images else ""
    for image in images:
        name, source, problem = os.path.relpath(image, folder), "", ""
        try:
            source = inline_thumbnail(image, SIDE).source
        except AesError as error:
            problem = error.problem.replace(image, name)
        strips, rating = [], 0.0
        for number, run in enumerate(runs):
            replies = [reply for reply in run.replies if reply.image == image]
            if replies:
                rating = replies[0].rating
                scored = [(reply.step, reply.score) for reply in replies if reply.score is not None]
                curve = Points([float(step) for step, _ in scored], [score for _, score in scored])
                path = _path(curve, SCORE_BOX, last=last, low=0, high=1) if scored else ""
                strips.append(RunReplies(number, _chosen(replies), path))
        yield SampledImage(name, source, problem, rating, strips)


def _chosen(replies: list[SampledReply]) -> list[SampledReply]:
    """REPLIES of them at most, evenly over the run, with the first and the last."""
    if len(replies) <= REPLIES:
        return replies
    return [replies[round(place * (len(replies) - 1) / (REPLIES - 1))] for place in range(REPLIES)]
