"""Trainer callbacks: the progress bar, the log of figures, alarms, stamped checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from aesr1.errors import AesError
from aesr1.json_lines import read_json_lines
from aesr1.model.checkpoint import stamp_checkpoint
from aesr1.outputs import write_text
from aesr1.terminal import say
from aesr1.training.alarms import LogRow, active_alarms, not_finite
from aesr1.training.processes import wait_for_all
from aesr1.training.resume import complete_checkpoints

FIGURES, ALARMS = "figures.jsonl", "alarms.jsonl"
MODEL_CARD = "README.md"
"""PEFT's empty model card, which it writes next to every adapter."""


def drop_rows_after(path: Path, step: int) -> None:
    """Remove rows after a step from a file that a killed run appended to."""
    rows = read_json_lines(path) if path.exists() else []
    write_text(path, _lines(row for row in rows if row["step"] <= step))


@dataclass
class ProgressBar(TrainerCallback):  # type: ignore[misc]  # transformers' callbacks are untyped
    """A progress bar on stderr. Stamps every checkpoint when all of it is written."""

    stage: str

    def __post_init__(self) -> None:
        self.bar = Progress(
            TextColumn(self.stage),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self.task = self.bar.add_task(self.stage, note="")

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Show the bar on the first process."""
        if state.is_world_process_zero:
            self.bar.update(self.task, total=state.max_steps, completed=state.global_step)
            self.bar.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Advance by a step."""
        self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Show the main figures."""
        row = state.log_history[-1]
        shown = ("loss", "reward", "readable", "validation/srcc")
        note = "  ".join(f"{key} {row[key]:.3f}" for key in shown if isinstance(row.get(key), float))
        if note:
            self.bar.update(self.task, note=note)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called after this process's last file of a checkpoint. It is complete when all processes are here."""
        wait_for_all()
        if state.is_world_process_zero:
            folder = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
            (folder / MODEL_CARD).unlink(missing_ok=True)
            stamp_checkpoint(folder, stage=self.stage)


class LengthReachedError(Exception):
    """A resumed run has already taken all of its steps."""


class EndAtLength(TrainerCallback):  # type: ignore[misc]
    """Ends a resumed run that has no step left: transformers asks after a step whether it was the last."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """LengthReachedError where nothing is left; the weights of the checkpoint are loaded by now."""
        if state.global_step >= state.max_steps:
            raise LengthReachedError


@dataclass
class RunLog(TrainerCallback):  # type: ignore[misc]
    """Writes every row of the log to figures.jsonl, raises alarms, and ends a run whose loss is NaN.

    The first process writes and warns. All processes get the same mean loss, so all end together: after an error on one
    process the others would wait forever.
    """

    output: Path

    def __post_init__(self) -> None:
        self.standing: set[str] = set()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the files; those of a killed run keep the rows up to its checkpoint."""
        args.logging_nan_inf_filter = False  # else an earlier loss is logged instead of a NaN
        if state.is_world_process_zero:
            write_text(self.output / FIGURES, _lines(state.log_history))
            drop_rows_after(self.output / ALARMS, state.global_step)
            self.standing = {alarm.name for alarm in active_alarms(state.log_history)} if state.log_history else set()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Log before each checkpoint.

        Then no mean covers steps before and after one, a resumed run logs the same as an uninterrupted one, and no
        checkpoint is written with an unchecked loss.
        """
        control.should_log |= control.should_save

    on_epoch_end = on_step_end

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write the row and check the alarms. AesError where the loss is NaN or infinite."""
        if state.is_world_process_zero:
            _append(self.output / FIGURES, state.log_history[-1])
            self._raise_alarms(state.log_history)
        if not_finite(state.log_history[-1], "loss"):
            alarm = active_alarms(state.log_history)[0]
            whole = complete_checkpoints(self.output)
            start = f"--model {whole[-1]}, its last whole checkpoint" if whole else "the same model"
            raise AesError(
                f"{alarm.problem} at step {alarm.step}: training cannot continue",
                fix=f"{alarm.advice}; start again in another output folder, from {start}",
            )

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Say which alarms were raised in the run, from its start on, and which are still active."""
        if not state.is_world_process_zero:
            return
        steps: dict[str, list[int]] = {}
        for row in read_json_lines(self.output / ALARMS):
            steps.setdefault(row["name"], []).append(row["step"])
        lines = [
            f"  {name}: at step {', '.join(map(str, raised))}; {'still active' if name in self.standing else 'ended'}"
            for name, raised in steps.items()
        ]
        if lines:
            say("\n".join([f"alarms of this run ({self.output / ALARMS} has problems and advice):", *lines]))

    def _raise_alarms(self, rows: Sequence[LogRow]) -> None:
        """Print and write each alarm when it becomes active."""
        alarms = active_alarms(rows)
        for alarm in alarms:
            if alarm.name not in self.standing:
                say(f"alarm at step {alarm.step}: {alarm.problem}\n  → {alarm.advice}")
                _append(self.output / ALARMS, vars(alarm))
        self.standing = {alarm.name for alarm in alarms}


def _append(path: Path, row: LogRow) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _lines(rows: Iterable[LogRow]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
