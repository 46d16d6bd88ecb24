"""Prints predictions as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aesr1.contract import level_of
from aesr1.records import Prediction
from aesr1.terminal import printable


def print_table(predictions: Sequence[Prediction]) -> None:
    """One row a picture: score 0–1 with its score_std, level, reasons or what went wrong. Text is never markup."""
    table = Table("picture", "score 0–1", "±", "level", "reasons", show_lines=False)
    for row in predictions:
        name = Text(printable(Path(row.image).name))
        if row.score is None:
            table.add_row(name, "—", "", "", Text(printable(row.error or "no score"), style="red"))
            continue
        silent = "(unreadable reply; the answer was forced)" if row.reply else "(scored without reasoning)"
        reasons = row.reasoning or silent
        std = "" if row.score_std is None else f"{row.score_std:.2f}"
        table.add_row(name, f"{row.score:.3f}", std, level_of(row.score), Text(printable(reasons)))
    console = Console()
    console.print(table)
