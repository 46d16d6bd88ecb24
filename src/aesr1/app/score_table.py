"""Prints predictions as a table, best first."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from heapq import nsmallest
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aesr1.records import Prediction
from aesr1.terminal import printable

MOST_PRINTED = 1_000
"""More are not read on a terminal, and would have to be held in memory."""


def best_first(rows: Sequence[Prediction]) -> list[Prediction]:
    """The rows by falling score; those without a score are last. Equal ones stay in order."""
    return sorted(rows, key=_rank)


def _rank(row: Prediction) -> float:
    return 1.0 if row.score is None else -row.score


def print_table(found: Iterable[Prediction], *, top: int | None = None) -> None:
    """One row a picture, best first: stars, score with its score_std, percentile, reasons or what went wrong.

    `top`: only so many. Paths are relative to the current folder where they lie in it. Text is never markup.
    """
    rows = nsmallest(top or MOST_PRINTED, found, key=_rank)
    reference = next((row.reference for row in rows if row.reference), None)
    percentile = ["percentile"] if reference else []
    caption = f"percentile: share of {reference} with a lower score; each number of stars has a fifth of them"
    table = Table("picture", "stars", "score 0–1", "±", *percentile, "reasons", caption=caption if reference else None)
    for row in rows:
        name = Text(printable(_relative(row.image)))
        if row.score is None:
            table.add_row(
                name, "", "—", *[""] * (1 + len(percentile)), Text(printable(row.error or "no score"), style="red")
            )
            continue
        silent = "(unreadable reply; the answer was forced)" if row.reply else "(scored without reasoning)"
        std = "" if row.score_std is None else f"{row.score_std:.2f}"
        share = ["" if row.percentile is None else f"{row.percentile:.0f}"] if reference else []
        stars = "★" * row.stars if row.stars else ""
        table.add_row(name, stars, f"{row.score:.3f}", std, *share, Text(printable(row.reasoning or silent)))
    Console().print(table)


def _relative(path: str) -> str:
    folder = str(Path.cwd())
    return os.path.relpath(path, folder) if path.startswith(folder + os.sep) else path
