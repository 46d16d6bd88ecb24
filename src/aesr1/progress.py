"""A progress bar on stderr; stdout is for results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


class RunningBar:
    """A running progress bar."""

    def __init__(self, progress_bar: Progress, task: int) -> None:
        self._bar, self._task = progress_bar, task

    def advance(self, count: int) -> None:
        """Advance by `count`."""
        self._bar.advance(self._task, count)  # type: ignore[arg-type]

    def note(self, text: str) -> None:
        """Show a text after the bar."""
        self._bar.update(self._task, note=text)  # type: ignore[arg-type]


@contextmanager
def progress_bar(label: str, *, total: int, quiet: bool = False) -> Iterator[RunningBar]:
    """Show a bar while the block runs; with `quiet` none."""
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), _Rate(), TextColumn("left"), TimeRemainingColumn())
    note = TextColumn("{task.fields[note]}", markup=False)
    with Progress(*columns, note, console=Console(stderr=True), disable=quiet) as progress:
        yield RunningBar(progress, progress.add_task(label, total=total, note=""))
