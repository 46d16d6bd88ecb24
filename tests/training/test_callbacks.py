"""A watched run: what is written down of it, which alarms are said, and a loss that is not a number."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_alarms import raised, rows

from aesr1.errors import AesError
from aesr1.training.callbacks import RunLog, drop_rows_after
from aesr1.training.checks import check_loggers


class Log:
    """A trainer's log as a callback meets it."""

    def __init__(self, output: Path, *, first: bool = True, history: list[dict[str, Any]] | None = None) -> None:
        self.watching = RunLog(output)
        self.args = SimpleNamespace(logging_nan_inf_filter=True)
        history = history or []
        step = history[-1]["step"] if history else 0
        self.state = SimpleNamespace(is_world_process_zero=first, log_history=history, global_step=step)
        self.control = SimpleNamespace(should_log=False, should_save=False)
        self.watching.on_train_begin(self.args, self.state, self.control)

    def add(self, row: dict[str, Any]) -> None:
        self.state.log_history.append(row)
        self.state.global_step = row["step"]
        self.watching.on_log(self.args, self.state, self.control)


def values(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_is_written_as_it_comes_and_an_alarm_said_once(tmp_path, capfd):
    log, curve = Log(tmp_path), rows(kl=[0.5] * 10)
    assert values(tmp_path / "figures.jsonl") == values(tmp_path / "alarms.jsonl") == []
    for number, row in enumerate(curve, start=1):
        log.add(row)
        assert values(tmp_path / "figures.jsonl") == curve[:number]
    said = capfd.readouterr()
    assert said.out == "" and said.err.count("alarm at step 15: KL from the starting model is 0.50") == 1
    assert values(tmp_path / "alarms.jsonl") == [vars(alarm) for alarm in raised(curve)]


def test_a_resumed_run_cuts_what_came_after_its_checkpoint(tmp_path, capfd):
    curve = rows(kl=[0.5] * 10, readable=[0.95] * 5 + [0.1] * 5)
    killed = Log(tmp_path)
    for row in curve[:8]:
        killed.add(row)
    assert [row["name"] for row in values(tmp_path / "alarms.jsonl")] == ["kl", "readable"]
    with (tmp_path / "figures.jsonl").open("a") as file:
        file.write('{"step": 45, "lo')
    with (tmp_path / "alarms.jsonl").open("a") as file:
        file.write('{"st')
    capfd.readouterr()

    resumed = Log(tmp_path, history=curve[:5])
    assert values(tmp_path / "figures.jsonl") == curve[:5]
    assert [row["name"] for row in values(tmp_path / "alarms.jsonl")] == ["kl"]
    for row in curve[5:]:
        resumed.add(row)
    assert values(tmp_path / "figures.jsonl") == curve
    assert values(tmp_path / "alarms.jsonl") == [vars(alarm) for alarm in raised(curve)]
    assert "KL" not in capfd.readouterr().err  # it was said before


def test_the_end_says_what_was_raised_and_what_is_still_active(tmp_path, capfd):
    log = Log(tmp_path)
    for row in rows(readable=[0.1] * 3 + [0.95] * 7, kl=[0.5, 0.5, 0.5, 0, 0, 0, 0, 0.9, 0.9, 0.9]):
        log.add(row)
    capfd.readouterr()
    log.watching.on_train_end(log.args, log.state, log.control)
    assert capfd.readouterr().err.splitlines() == [
        f"alarms of this run ({tmp_path / 'alarms.jsonl'} has problems and advice):",
        "  readable: at step 5; ended",
        "  kl: at step 15, 45; still active",
    ]


def test_the_end_of_a_run_without_alarms_is_silent(tmp_path, capfd):
    log = Log(tmp_path)
    for row in rows():
        log.add(row)
    log.watching.on_train_end(log.args, log.state, log.control)
    assert capfd.readouterr().err == ""


def test_other_processes_write_nothing(tmp_path):
    Log(tmp_path, first=False).add(rows()[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_every_process(tmp_path, first, loss):
    for step, whole in ((50, True), (100, True), (150, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if whole:
            (tmp_path / f"checkpoint-{step}" / "aesr1.json").touch()
    log = Log(tmp_path, first=first)
    assert not log.args.logging_nan_inf_filter
    log.add({"step": 5, "loss": 0.1, "learning_rate": 1e-4})
    with pytest.raises(AesError, match=f"the loss is {loss} at step 10") as caught:
        log.add({"step": 10, "loss": loss, "learning_rate": 1e-4})
    for words in ("halve learning_rate (to 5e-05)", "bf16: true", f"--model {tmp_path / 'checkpoint-100'}"):
        assert words in caught.value.fix
    if first:
        assert len(values(tmp_path / "figures.jsonl")) == 2 and len(values(tmp_path / "alarms.jsonl")) == 1


def test_every_checkpoint_is_logged_before_it_is_written(tmp_path):
    log = Log(tmp_path)
    log.watching.on_step_end(log.args, log.state, log.control)
    assert not log.control.should_log
    log.control.should_save = True
    log.watching.on_step_end(log.args, log.state, log.control)
    assert log.control.should_log


def test_rows_of_later_steps_are_cut_off(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    drop_rows_after(path, 2)
    assert values(path) == [{"step": 1}, {"step": 2}]
    drop_rows_after(tmp_path / "new.jsonl", 2)
    assert (tmp_path / "new.jsonl").read_text() == ""


def test_a_logger_that_is_not_there_is_refused(monkeypatch):
    check_loggers([])
    check_loggers("none")
    check_loggers(["tensorboard"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AesError, match="report_to: wandb needs a package") as caught:
        check_loggers(["wandb"])
    assert "pip install wandb" in caught.value.fix
    with pytest.raises(AesError, match="names 'paper', which is not a logger"):
        check_loggers("paper")
