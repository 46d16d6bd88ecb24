"""An overview of a file of ratings: counts, histogram of the scores, rater_std; as text and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aesr1.contract import LEVELS, level_of
from aesr1.errors import AesError, install
from aesr1.json_lines import iterate_rows, ratings_file
from aesr1.outputs import staged_output
from aesr1.records import SPLITS, Rating

BINS = 20
BLOCKS = " ▁▂▃▄▅▆▇█"


class Overview(NamedTuple):
    """Statistics of one data set. Scores and standard deviations are on the 0–1 scale."""

    domain: str
    rows: dict[str, int]  # by split
    levels: dict[str, int]  # bad, fair, good
    mean: float
    deviation: float  # standard deviation of the scores
    lowest: float
    highest: float
    histogram: list[int]  # counts of scores in 20 bins from 0 to 1
    rater_std: float | None  # mean over images of the standard deviation of votes
    raters: float | None  # median
    attributes: list[str]
    licence: str | None
    source: str | None


class Columns(NamedTuple):
    """The values of one data set that `plot` draws."""

    scores: NDArray[np.float64]
    rater_stds: NDArray[np.float64]  # NaN where unknown


def overview(paths: Sequence[Path]) -> tuple[list[Overview], dict[str, Columns]]:
    """The overview and the values of each data set in these files. AesError if there are no rows."""
    rows: dict[str, list[Rating]] = {}
    for path in paths:
        for row in iterate_rows(ratings_file(path), Rating):
            rows.setdefault(row.domain, []).append(row)
    if not rows:
        raise AesError(f"{', '.join(map(str, paths))} holds no rows", fix="pass a ratings.jsonl with rows")
    columns = {
        domain: Columns(
            np.array([row.score for row in of_domain]),
            np.array([np.nan if row.rater_std is None else row.rater_std for row in of_domain]),
        )
        for domain, of_domain in rows.items()
    }
    return [_overview(domain, of_domain, columns[domain]) for domain, of_domain in rows.items()], columns


def _overview(domain: str, rows: Sequence[Rating], columns: Columns) -> Overview:
    scores, rater_stds = columns
    raters = [row.raters for row in rows if row.raters is not None]
    return Overview(
        domain=domain,
        rows={split: sum(row.split == split for row in rows) for split in SPLITS},
        levels={level: sum(level_of(row.score) == level for row in rows) for level in LEVELS},
        mean=float(scores.mean()),
        deviation=float(scores.std()),
        lowest=float(scores.min()),
        highest=float(scores.max()),
        histogram=np.histogram(scores, bins=BINS, range=(0, 1))[0].tolist(),
        rater_std=None if np.isnan(rater_stds).all() else float(np.nanmean(rater_stds)),
        raters=float(np.median(raters)) if raters else None,
        attributes=sorted({name for row in rows for name in row.attributes or ()}),
        licence=rows[0].licence,
        source=rows[0].source,
    )


def to_text(overviews: Sequence[Overview]) -> str:
    """One paragraph for each data set, with the histogram as a line of blocks from 0 to 1."""
    return "\n\n".join(map(_paragraph, overviews))


def _paragraph(stats: Overview) -> str:
    total = sum(stats.rows.values())
    splits = ", ".join(f"{count:,} {split}" for split, count in stats.rows.items() if count)
    levels = ", ".join(f"{count / total:.0%} {level}" for level, count in stats.levels.items())
    lines = [
        f"{stats.domain}: {total:,} images ({splits})",
        f"  score   {stats.mean:.3f} ± {stats.deviation:.3f}, {stats.lowest:.3f} to {stats.highest:.3f}; {levels}",
        f"  0 |{blocks(stats.histogram)}| 1",
    ]
    if stats.rater_std is not None:
        lines.append(f"  rater_std  {stats.rater_std:.3f} (standard deviation of single votes, mean over images)")
    if stats.raters is not None:
        lines.append(f"  raters  {stats.raters:g} an image (median)")
    if stats.attributes:
        lines.append(f"  attributes  {', '.join(stats.attributes)}")
    lines += [f"  {name:7} {text}" for name, text in (("licence", stats.licence), ("source", stats.source)) if text]
    return "\n".join(lines)


def blocks(counts: Sequence[int]) -> str:
    """Counts as block characters. The largest count is a full block; every count above 0 is visible."""
    top = max(counts)
    return "".join(BLOCKS[0 if not count else max(1, round(count / top * 8))] for count in counts)


def save_plot(columns: dict[str, Columns], output: Path) -> Path:
    """Draw for each data set the histogram of the scores and, if known, rater_std against the score."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise AesError("plots need matplotlib", fix=install("data")) from error
    if output.suffix not in (".png", ".svg", ".pdf"):
        raise AesError(f"{output} is not a supported picture format", fix="use the suffix .png, .svg or .pdf")
    figure = Figure(figsize=(9, 2.6 * len(columns)), layout="constrained")
    axes = figure.subplots(len(columns), 2, squeeze=False)
    edges = np.linspace(0, 1, 2 * BINS + 1)
    for (left, right), (domain, (scores, rater_stds)) in zip(axes, columns.items(), strict=True):
        left.hist(scores, bins=edges, color="#4477aa")
        left.axvline(scores.mean(), color="#222222", linewidth=1, linestyle="--")
        title = domain.replace("$", r"\$")  # matplotlib reads $ as a formula
        left.set(title=f"{title}: {len(scores):,} images", xlabel="score (mean opinion)", ylabel="images", xlim=(0, 1))
        known = ~np.isnan(rater_stds)
        if known.any():
            right.hexbin(scores[known], rater_stds[known], gridsize=30, mincnt=1, cmap="Blues", bins="log")
            right.set(xlabel="score", ylabel="standard deviation of the ratings", xlim=(0, 1), ylim=(0, None))
            right.set_title("disagreement of raters")
        else:
            right.axis("off")
            right.text(0.5, 0.5, "no standard deviation known", ha="center", va="center", color="#777777")
    with staged_output(output.parent, output.name) as part:
        figure.savefig(part / output.name, dpi=120)
    return output
