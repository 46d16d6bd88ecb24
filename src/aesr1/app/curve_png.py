"""The training curves as a PNG."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aesr1.app.curve_panels import DOTTED, REST, Panel, Section
from aesr1.errors import AesError, install

COLOURS = ("#31598a", "#c2572b", "#2f7d58", "#8b4f9f", "#a37a00", "#3f8fa8", "#b0456e", "#5d5952")
"""One a run."""
SOFTWARE = "aesr1 curves"
"""The PNG's software field: a file without it is not ours and is not overwritten."""
ACROSS = 4


def write_png(runs: Sequence[str], drawn: Sequence[Section], path: Path) -> None:
    """Draw every panel but the other figures, 2,100 pixels wide, with the runs' names above."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError as error:
        raise AesError("drawing a PNG needs matplotlib", fix=f"{install('data')}, or draw .html") from error
    panels = [panel for section in drawn if section.title != REST for panel in section.panels]
    if not panels:
        raise AesError("no figure that a picture shows was logged", fix="draw .html: it shows all others as well")
    last = max(1.0, *(curve.raw.steps[-1] for panel in panels for curve in panel.curves))
    rows = -(-len(panels) // ACROSS)
    figure = Figure(figsize=(14, 2.5 * rows + 0.7), layout="constrained", facecolor="white")
    grid = figure.subplots(rows, ACROSS, squeeze=False).flatten()
    for axes, panel in zip(grid, panels, strict=False):
        _plot(axes, panel, last)
    for axes in grid[len(panels) :]:
        axes.axis("off")
    names = [" " + _plain(name) for name in runs]  # an underscore at its start would hide the entry
    handles = [Line2D([], [], color=colour, linewidth=2) for colour in COLOURS[: len(runs)]]
    figure.legend(handles, names, loc="outside upper left", ncols=4, frameon=False, fontsize=11)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a run's name in letters that the font lacks
        figure.savefig(path, format="png", dpi=150, metadata={"Software": SOFTWARE})


def _plot(axes: Any, panel: Panel, last: float) -> None:
    for curve in panel.curves:
        colour = COLOURS[curve.run]
        pale = {"alpha": 0.3, "linewidth": 1} if curve.smooth else {"linewidth": 1.6}
        axes.plot(*curve.raw, color=colour, marker="o" if len(curve.raw.steps) <= DOTTED else "", markersize=3, **pale)
        if curve.smooth:
            axes.plot(*curve.smooth, color=colour, linewidth=2)
    for _, alarm in panel.alarms:
        axes.axvline(alarm.step, color="#a23b2a", linewidth=1, linestyle=":")
    axes.set_title(_plain(panel.title), loc="left", fontsize=11, fontweight="bold")
    axes.set_ylabel(panel.unit, fontsize=8.5, color="#625d55")
    axes.set_xlabel("step", fontsize=9, color="#625d55")
    axes.set_xlim(0, last * 1.02)
    axes.set_ylim(panel.low, panel.high)
    axes.set_yticks(panel.ticks.places, panel.ticks.labels)
    axes.tick_params(labelsize=9, color="#d9d5cd", labelcolor="#625d55")
    axes.grid(axis="y", color="#eceae5")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#d9d5cd")


def _plain(text: str) -> str:
    """Text that matplotlib can draw: a dollar starts a formula, and fonts have no halves of surrogate pairs."""
    return text.encode("utf-8", errors="replace").decode().replace("$", r"\$")
