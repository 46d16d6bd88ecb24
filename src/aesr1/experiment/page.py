"""The HTML page of an experiment: tables, a plot of the cells, and every command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aesr1.experiment.plan import Plan
from aesr1.experiment.summary import COMPARED, Section, Summary, small_print, tables
from aesr1.html_page import render_page
from aesr1.intervals import Interval
from aesr1.outputs import replaced_file

GENERATOR = "aesr1 experiment"
TEMPLATE = Path(__file__).parent / "templates" / "experiment.html.j2"
WIDTH, MARGIN = 260.0, 12.0
"""Of a plot in the units of its SVG: what the values span, and the free space on each side."""
TICKS = 3


@dataclass(frozen=True)
class Line:
    """A cell in a plot; all are x in the units of the SVG."""

    cell: str
    text: str
    value: float
    low: float
    high: float
    seeds: list[float]


@dataclass(frozen=True)
class Plot:
    """One metric of one section."""

    title: str
    ticks: list[tuple[float, str]]  # x and label
    lines: list[Line]


def write_page(output: Path, summary: Summary, plan: Plan) -> None:
    """Write the page. It needs no other file."""
    context = {
        "summary": summary,
        "small_print": small_print(summary),
        "tables": tables(summary),
        "plots": [(summary.name(section), plots(section)) for section in summary.sections],
        "steps": [
            json.loads((step.folder / "step.json").read_text()) | {"name": step.name, "users": step.users}
            for step in plan.steps
        ],
        "width": WIDTH + 2 * MARGIN,
    }
    with replaced_file(output) as part:
        render_page(part, TEMPLATE, GENERATOR, context)


def plots(section: Section) -> list[Plot]:
    """A plot for each metric: the mean of every cell with its interval, and the value of each seed."""
    found = []
    for metric in COMPARED:
        means = [entry.mean[metric.name] for entry in section.entries]
        seeds = [entry.seeds[metric.name] for entry in section.entries]
        low, high = span(means, seeds)
        lines = [
            Line(
                entry.cell,
                f"{mean.value:.3f}",
                value=_x(mean.value, low, high),
                low=_x(mean.low, low, high),
                high=_x(mean.high, low, high),
                seeds=[_x(value, low, high) for value in values],
            )
            for entry, mean, values in zip(section.entries, means, seeds, strict=True)
        ]
        ticks = [low + (high - low) * i / (TICKS - 1) for i in range(TICKS)]
        found.append(Plot(metric.title, [(_x(tick, low, high), f"{tick:.2f}") for tick in ticks], lines))
    return found


def span(means: Sequence[Interval], seeds: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The values from which to which a plot goes, in hundredths."""
    ends = [end for mean in means for end in (mean.low, mean.high)] + [value for each in seeds for value in each]
    low, high = int(min(ends) * 100 // 1), int(-(-max(ends) * 100 // 1))
    high += (high - low) % 2 or 2 * (high == low)  # so that the middle tick is a whole hundredth too
    return low / 100, high / 100


def _x(value: float, low: float, high: float) -> float:
    return round(MARGIN + WIDTH * (value - low) / (high - low), 1)
