"""Which curves raise which alarms, and when; and what a healthy run may do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from aesr1.training.alarms import DEFAULT, Alarm, Thresholds, active_alarms

HEALTHY = {
    "reward": [2.44, 2.47, 2.5, 2.52, 2.49, 2.55, 2.58, 2.6, 2.57, 2.61],
    "readable": [0.95, 0.93, 0.96, 0.98, 0.99, 0.94, 0.97, 0.98, 0.96, 0.99],
    "score/std": [0.25, 0.24, 0.22, 0.24, 0.23, 0.24, 0.22, 0.23, 0.24, 0.24],
    "frac_reward_zero_std": [0, 0, 0.16, 0, 0.1, 0, 0.02, 0, 0, 0],
    "kl": [0.001, 0.01, 0.02, 0.04, 0.08, 0.08, 0.082, 0.07, 0.07, 0.07],
    "entropy": [1.18, 1.1, 1.1, 1.0, 1.0, 0.95, 0.9, 0.9, 0.86, 0.85],
    "completions/clipped_ratio": [0.04, 0, 0.02, 0, 0, 0.03, 0, 0, 0, 0],
    "validation/srcc": [0.7, 0.72, 0.73, 0.71, 0.73, 0.72, 0.74, 0.72, 0.71, 0.7],
    "grad_norm": [0.5, 0.6, 0.4, 2.0, 0.5, 0.5, 0.4, 0.5, 0.5, 0.5],
    "loss": [1e-5, 1e-4, 2e-4, 3e-4, 9e-4, 8e-4, 8e-4, 8e-4, 8e-4, 8e-4],
}
"""Ten logs, with the wavering of real runs."""
CAPPED = {"completions__cap": [96.0] * 10}


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
        now = active_alarms(logs[:end], thresholds)
        alarms += [alarm for alarm in now if alarm.name not in before]
        before = {alarm.name for alarm in now}
    return alarms


def test_a_healthy_run_raises_nothing():
    assert raised(rows()) == []
    assert active_alarms([]) == []


@pytest.mark.parametrize(
    ("changes", "step", "name", "problem", "advice"),
    [
        ({"kl": [0.1, 0.5, 0.9, *[0.9] * 7]}, 15, "kl", "0.50 a token", "halve learning_rate (to 5e-05)"),
        ({"kl": [0.03, 0.06, 0.07, 0.08, 0.1, 0.12, 0.13, 0.13, 0.13, 0.13]}, 40, "kl", "0.13", "beta fourfold"),
        ({"readable": [0.95] * 5 + [0.9, 0.8, 0.7, 0.6, 0.6]}, 45, "readable", "from 95% to 70%", "raise beta"),
        ({"readable": [0.2] * 10}, 25, "readable", "only 20%", "longer cold start"),
        ({"readable": [0.8] * 10}, 25, "readable", "only 80% of replies are readable, and", "longer cold start"),
        ({"readable": [0.8, 0.8, 0.82, 0.84, 0.86] + [0.88] * 5}, 25, "readable", "only 84%", "longer cold start"),
        ({"readable": [0.1, 0.2, 0.3, 0.5, 0.7, 0.8] + [0.95] * 4}, 5, "readable", "only 10%", "stop and start"),
        ({"frac_reward_zero_std": [0.95] + [0.1] * 9}, 5, "frac_reward_zero_std", "95% of groups", "generations"),
        ({"frac_reward_zero_std": [0.9, 0.95] + [0.1] * 8}, 10, "frac_reward_zero_std", "92% of groups", "temperature"),
        ({"score__std": [0.2] * 5 + [0.01] * 5}, 40, "score/std", "from 0.200 to 0.010", "reward_weights"),
        ({"score__std": [0.03] * 5 + [0.003] * 5}, 40, "score/std", "from 0.030 to 0.003", "relative more"),
        ({"score__std": [0.0] * 10}, 25, "score/std", "one value from the start", "longer cold start"),
        ({"frac_reward_zero_std": [0.0] * 5 + [0.8] * 5}, 35, "frac_reward_zero_std", "53% of groups", "generations"),
        ({"completions__clipped_ratio": [0.1, 0.2, 0.4] + [0.5] * 7}, 15, "completions/clipped_ratio", "23%", "double"),
        (
            {"completions__mean_length": [100.0 + 50 * n for n in range(10)], "completions__cap": [512] * 10},
            45,
            "completions/mean_length",
            "450 tokens in the mean, after 150, of 512",
            "double max_completion_length (from 512 to 1024)",
        ),
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
        {"readable": [0.3, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.95]},  # begins badly and learns
        {"readable": [0.2, 0.8] + [0.95] * 8},  # one log is not below the limit of the first
        {"frac_reward_zero_std": [0.9] + [0.1] * 9},  # at the limit of the first log
        {"score__std": [0.19, 0.12, 0.1, 0.09, 0.09, 0.08, 0.08, 0.08, 0.08, 0.08]},  # as narrow as people's
        {"score__std": [0.015, 0.01, 0.012, 0.014, 0.011, 0.015, 0.01, 0.013, 0.012, 0.011]},  # never was wider
        {"score__std": [0.0] * 4 + [0.05] * 6},  # one value before it warmed up
        {"kl": [0.01] * 4 + [1.0] + [0.01] * 5},  # a few tokens
        {**CAPPED, "completions__mean_length": [67.0, 69, 66, 68, 70, 67, 69, 66, 68, 70]},
        {**CAPPED, "completions__mean_length": [85.0, 86, 84, 85, 86, 84, 85, 86, 85, 84]},  # near the cap, and stays
        {**CAPPED, "completions__mean_length": [20.0 + 5 * n for n in range(10)]},  # grows, far from the cap
        {"completions__mean_length": [100.0 + 50 * n for n in range(10)]},  # its cap is not known
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
    assert names(raised(rows(kl=[0.5, 0.5, 0.5, 0, 0, 0, 0, 0.9, 0.9, 0.9]))) == [(15, "kl"), (45, "kl")]


def test_a_cold_start_alarms_at_a_rising_loss_alone():
    losses = [3.2, 1.5, 0.8, 0.6, 0.5, 0.5, 0.6, 0.9, 1.2, 1.5]
    logs = [{"step": n, "loss": loss, "entropy": 1e-3 + 1 / n**3} for n, loss in enumerate(losses, start=1)]
    assert names(raised(logs)) == [(9, "loss")]
    assert raised(logs[:7]) == []


def test_thresholds_can_be_set():
    assert names(raised(rows(), Thresholds(kl=0.05))) == [(30, "kl")]


@pytest.mark.parametrize("before", [5, 300])
def test_a_kl_that_runs_away_is_seen_at_its_second_log_however_long_the_run(before):
    found = raised(rows(kl=[0.01] * before + [1.0] * 3))
    assert names(found) == [(5 * before + 10, "kl")]


def cold_start(losses: Any) -> list[dict[str, Any]]:
    return [{"step": n, "loss": float(loss)} for n, loss in enumerate(losses, start=1)]


@pytest.mark.parametrize(
    ("lowest", "noise"),
    [(0.012, 0.002), (0.012, 0.004), (0.5, 0.05), (0.1, 0.05), (0.05, 0.05)],
)
def test_a_cold_start_whose_loss_wavers_raises_nothing(lowest, noise):
    logs = np.arange(150)
    for seed in range(3):
        losses = lowest + 3 * np.exp(-logs / 8) + noise * np.random.default_rng(seed).standard_normal(150)
        assert raised(cold_start(np.maximum(losses, 1e-4))) == []


def test_a_cold_start_that_knows_its_texts_by_heart_may_double_its_loss():
    assert raised(cold_start([4.9, 1.8, 0.5, 0.13, 0.03, 0.012, 0.012, 0.012, 0.014, 0.016, 0.02, 0.024])) == []


@pytest.mark.parametrize(("rise", "step"), [([0.7] * 10, 51), ([0.02 * n for n in range(60)], 65)])
def test_a_cold_start_that_diverges_is_seen_within_few_logs(rise, step):
    losses = 0.5 + 3 * np.exp(-np.arange(50) / 8)
    noise = 0.05 * np.random.default_rng(0).standard_normal(50 + len(rise))
    found = raised(cold_start(np.concatenate([losses, 0.5 + np.array(rise)]) + noise))
    assert names(found)[0] == (step, "loss")
