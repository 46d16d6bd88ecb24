"""A watched run: which curves raise which alarms, what is written down, and a loss that is no number."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aesr1.alarms import DEFAULT, Alarm, Thresholds, standing
from aesr1.errors import AesError
from aesr1.watch import Watching, check_loggers, keep_until

HEALTHY = {
    "reward": [2.44, 2.47, 2.5, 2.52, 2.49, 2.55, 2.58, 2.6, 2.57, 2.61],
    "readable": [0.95, 0.93, 0.96, 0.98, 0.99, 0.94, 0.97, 0.98, 0.96, 0.99],
    "score/spread": [0.25, 0.24, 0.22, 0.24, 0.23, 0.24, 0.22, 0.23, 0.24, 0.24],
    "frac_reward_zero_std": [0, 0, 0.16, 0, 0.1, 0, 0.02, 0, 0, 0],
    "kl": [0.001, 0.01, 0.02, 0.04, 0.08, 0.08, 0.082, 0.07, 0.07, 0.07],
    "entropy": [1.18, 1.1, 1.1, 1.0, 1.0, 0.95, 0.9, 0.9, 0.86, 0.85],
    "completions/clipped_ratio": [0.04, 0, 0.02, 0, 0, 0.03, 0, 0, 0, 0],
    "validation/srcc": [0.7, 0.72, 0.73, 0.71, 0.73, 0.72, 0.74, 0.72, 0.71, 0.7],
    "grad_norm": [0.5, 0.6, 0.4, 2.0, 0.5, 0.5, 0.4, 0.5, 0.5, 0.5],
    "loss": [1e-5, 1e-4, 2e-4, 3e-4, 9e-4, 8e-4, 8e-4, 8e-4, 8e-4, 8e-4],
}
"""Ten logs, with the wavering of real runs."""


def rows(**changes: list[float | None]) -> list[dict[str, Any]]:
    """A healthy run's logs, every 5 steps, but for some figures."""
    figures = {**HEALTHY, **{name.replace("__", "/"): values for name, values in changes.items()}}
    logs = max(map(len, figures.values()))
    return [
        {
            "step": 5 * number + 5,
            "learning_rate": 1e-4,
            **{name: v[number] for name, v in figures.items() if number < len(v)},
        }
        for number in range(logs)
    ]


def names(found: list[Any]) -> list[tuple[int, str]]:
    return [(alarm.step, alarm.name) for alarm in found]


def raised(logs: list[dict[str, Any]], thresholds: Thresholds = DEFAULT) -> list[Alarm]:
    """Every alarm in the order of the logs: each when it begins to hold, and again where it ceased and came back."""
    alarms: list[Alarm] = []
    before: set[str] = set()
    for end in range(1, len(logs) + 1):
        now = standing(logs[:end], thresholds)
        alarms += [alarm for alarm in now if alarm.name not in before]
        before = {alarm.name for alarm in now}
    return alarms


def test_a_healthy_run_raises_nothing():
    assert raised(rows()) == []
    assert standing([]) == []


@pytest.mark.parametrize(
    ("changes", "step", "name", "problem", "advice"),
    [
        ({"kl": [0.1, 0.5, 0.9, *[0.9] * 7]}, 15, "kl", "0.50 a token", "halve learning_rate (to 5e-05)"),
        ({"kl": [0.03, 0.06, 0.07, 0.08, 0.1, 0.12, 0.13, 0.13, 0.13, 0.13]}, 40, "kl", "0.13", "beta fourfold"),
        ({"readable": [0.95] * 5 + [0.9, 0.8, 0.7, 0.6, 0.6]}, 45, "readable", "from 95% to 70%", "raise beta"),
        ({"readable": [0.2] * 10}, 25, "readable", "only 20%", "longer cold start"),
        ({"score__spread": [0.2] * 5 + [0.01] * 5}, 40, "score/spread", "from 0.20 to 0.010", "reward_weights"),
        ({"frac_reward_zero_std": [0.0] * 5 + [0.8] * 5}, 35, "frac_reward_zero_std", "53% of groups", "generations"),
        ({"completions__clipped_ratio": [0.1, 0.2, 0.4] + [0.5] * 7}, 15, "completions/clipped_ratio", "23%", "double"),
        ({"entropy": [0.8] * 3 + [0.3, 0.1] + [0.02] * 5}, 35, "entropy", "from 0.80 to 0.047", "temperature"),
        ({"grad_norm": [0.5] * 9 + [math.inf]}, 50, "grad_norm", "norm is inf", "fp16"),
        ({"loss": [0.1] * 9 + [math.nan]}, 50, "loss", "loss is nan", "bf16: true"),
        (
            {"validation__srcc": [0.7, 0.72, None, 0.74, None, 0.68, None, 0.66, None, None]},
            40,
            "validation/srcc",
            "from 0.740 (step 20) to 0.660, although the reward rose from 2.50 to 2.58",
            "checkpoint nearest step 20",
        ),
    ],
)
def test_a_failure_is_named_with_its_advice(changes, step, name, problem, advice):
    found = raised(rows(**changes))
    assert names(found) == [(step, name)]
    assert problem in found[0].problem and advice in found[0].advice


@pytest.mark.parametrize(
    "changes",
    [
        {"readable": [0.95] * 5 + [0.5] + [0.95] * 4},  # one odd batch
        {"readable": [0.1, 0.1, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.9]},  # begins badly and learns
        {"score__spread": [0.19, 0.12, 0.1, 0.09, 0.09, 0.08, 0.08, 0.08, 0.08, 0.08]},  # as narrow as people's
        {"score__spread": [0.01] * 10},  # never was wider
        {"validation__srcc": [0.7, 0.74, 0.68, 0.73, 0.68, 0.73, 0.68, 0.74, 0.68, 0.73]},  # never twice in a row
        {"validation__srcc": [0.74, 0.60]},  # too few to tell
        {"kl": []},  # beta: 0
        {"readable": [None] * 10, "loss": [None] * 10},
        {"loss": [1e-9, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]},  # it grows with the KL
    ],
)
def test_what_a_healthy_run_may_do_is_no_alarm(changes):
    assert raised(rows(**changes)) == []


def test_an_alarm_that_ceased_and_came_back_is_raised_again():
    assert names(raised(rows(kl=[0.5, 0.5, 0.5, 0, 0, 0, 0, 0.9, 0.9, 0.9]))) == [(15, "kl"), (40, "kl")]


def test_a_cold_start_alarms_at_a_rising_loss_alone():
    losses = [3.2, 1.5, 0.8, 0.6, 0.5, 0.5, 0.6, 0.9, 1.2, 1.5]
    logs = [{"step": n, "loss": loss, "entropy": 1e-3 + 1 / n**3} for n, loss in enumerate(losses, start=1)]
    assert names(raised(logs)) == [(9, "loss")]
    assert raised(logs[:7]) == []


def test_thresholds_can_be_set():
    assert names(raised(rows(), Thresholds(kl=0.05))) == [(30, "kl")]


class Log:
    """A trainer's log as a callback meets it."""

    def __init__(self, output: Path, *, first: bool = True, history: list[dict[str, Any]] | None = None) -> None:
        self.watching = Watching(output)
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
    assert said.out == "" and said.err.count("alarm at step 15: KL from the model that it began with is 0.50") == 1
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
    keep_until(path, 2)
    assert values(path) == [{"step": 1}, {"step": 2}]
    keep_until(tmp_path / "new.jsonl", 2)
    assert (tmp_path / "new.jsonl").read_text() == ""


def test_a_logger_that_is_not_there_is_refused(monkeypatch):
    check_loggers([])
    check_loggers("none")
    check_loggers(["tensorboard"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AesError, match="report_to: wandb needs a package") as caught:
        check_loggers(["wandb"])
    assert "pip install wandb" in caught.value.fix
    with pytest.raises(AesError, match="names 'paper', which is no logger"):
        check_loggers("paper")
