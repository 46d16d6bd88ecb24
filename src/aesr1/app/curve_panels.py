"""Which figures the training curves show, in which order and scale. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from aesr1.training.alarms import Alarm, LogRow

KNOWN = {
    "Reward": {
        "reward": ("Reward", ""),
        "reward_std": ("Reward, standard deviation", "within groups"),
        "frac_reward_zero_std": ("Groups with zero advantage", "share of groups"),
        "resampled": ("Groups exchanged for others", "share of groups"),
    },
    "Held-out images": {
        "validation/srcc": ("SRCC", ""),
        "validation/plcc": ("PLCC", ""),
        "validation/mae": ("MAE", "score, 0–1"),
        "validation/readable": ("Readable replies, held out", "share"),
    },
    "Replies": {
        "readable": ("Readable replies", "share"),
        "score/mean": ("Score, mean", "0–1"),
        "score/std": ("Score, standard deviation", "0–1"),
        "completions/mean_length": ("Reply length, mean", "tokens"),
        "completions/clipped_ratio": ("Replies cut at the longest length", "share"),
    },
    "Policy": {
        "kl": ("KL divergence", "nats a token"),
        "entropy": ("Entropy", "nats a token"),
        "clip_ratio/region_mean": ("Clip fraction", "share of tokens"),
        "mean_token_accuracy": ("Token accuracy", "share"),
    },
    "Optimisation": {
        "loss": ("Loss", ""),
        "grad_norm": ("Gradient norm", "before clipping"),
        "learning_rate": ("Learning rate", ""),
        "step_time": ("Step time", "seconds"),
    },
}
"""Section, then figure as it is logged: title and unit."""
LEAST_SPAN = 0.05
"""The smallest range of an axis of shares, scores and correlations, so that small changes look small."""
REST = "Other figures"
UNSHOWN = ("step", "epoch", "total_flos", "num_tokens", "completions/cap")
DOTTED = 12
"""Curves with at most this many values have dots."""
LOGS_SMOOTHED = 24
"""Curves with at least this many values are drawn pale, with a running mean over them."""
POINTS = 500
"""More values than this are drawn as means of neighbours: a panel has fewer pixels."""
TICKS = 5


class Points(NamedTuple):
    """A curve: values at steps, without NaN."""

    steps: list[float]
    values: list[float]


class Ticks(NamedTuple):
    """Round positions on an axis, and their labels."""

    places: list[float]
    labels: list[str]


@dataclass(frozen=True)
class Curve:
    """One run's figure."""

    run: int  # place in the list of runs
    raw: Points
    smooth: Points | None


@dataclass(frozen=True)
class Panel:
    """One figure of all the runs that have it."""

    name: str  # as it is logged
    title: str
    unit: str
    curves: list[Curve]
    low: float
    high: float
    ticks: Ticks
    alarms: list[tuple[int, Alarm]]  # run, alarm about this figure


@dataclass(frozen=True)
class Section:
    """Panels about one subject."""

    title: str
    panels: list[Panel]


def sections(runs: Sequence[Sequence[LogRow]], alarms: Sequence[Sequence[Alarm]]) -> list[Section]:
    """The panels of several runs' logs; a figure that no run has measured is left out."""
    names = list(dict.fromkeys(name for rows in runs for row in rows for name in row))
    parts = {
        name: (f"Reward: {name.split('/')[1]}", "part, before its weight")
        for name in names
        if name.startswith("rewards/") and name.endswith("/mean")
    }
    reward = KNOWN["Reward"]
    tables = {**KNOWN, "Reward": {"reward": reward["reward"], **parts, **reward}}
    known = {name for table in tables.values() for name in table}
    tables[REST] = {
        name: (name, "") for name in sorted(names) if name not in {*known, *UNSHOWN} and not name.startswith("train_")
    }
    filled = []
    for title, table in tables.items():
        panels = [_panel(name, words, unit, runs, alarms) for name, (words, unit) in table.items()]
        if shown := [panel for panel in panels if panel]:
            filled.append(Section(title, shown))
    return filled


def _panel(
    name: str, title: str, unit: str, runs: Sequence[Sequence[LogRow]], alarms: Sequence[Sequence[Alarm]]
) -> Panel | None:
    curves = []
    for number, rows in enumerate(runs):
        raw = points(rows, name)
        if raw.steps:
            curves.append(Curve(number, thinned(raw), None if name == "learning_rate" else smoothed(raw)))
    if not curves:
        return None
    values = [value for curve in curves for value in curve.raw.values]
    share = unit.startswith("share")
    span = LEAST_SPAN if share or unit.endswith("0–1") or name in ("validation/srcc", "validation/plcc") else 0.0
    low, high = limits(min(values), max(values), span=span, most=1.0 if share else math.inf)
    about = [(number, alarm) for number, raised in enumerate(alarms) for alarm in raised if alarm.name == name]
    return Panel(name, title, unit, curves, low, high, ticks(low, high), about)


def points(rows: Sequence[LogRow], name: str) -> Points:
    """A figure's finite numbers and their steps."""
    logged = [
        (float(row["step"]), float(row[name]))
        for row in rows
        if isinstance(row.get(name), int | float) and not isinstance(row[name], bool) and math.isfinite(row[name])
    ]
    return Points([step for step, _ in logged], [value for _, value in logged])


def smoothed(curve: Points) -> Points | None:
    """The running mean over a twelfth of the values around each; None where there are few of them."""
    count = len(curve.values)
    if count < LOGS_SMOOTHED:
        return None
    reach = count // 24
    sums = [0.0]
    for value in curve.values:
        sums.append(sums[-1] + value)
    means = []
    for place in range(count):
        side = min(reach, place, count - 1 - place)
        means.append((sums[place + side + 1] - sums[place - side]) / (2 * side + 1))
    return thinned(Points(curve.steps, means))


def thinned(curve: Points) -> Points:
    """At most POINTS points, each the mean of neighbours."""
    each = math.ceil(len(curve.values) / POINTS)
    if each < 2:
        return curve
    parts = [slice(start, start + each) for start in range(0, len(curve.values), each)]
    mean = [[math.fsum(column[part]) / len(column[part]) for part in parts] for column in curve]
    return Points(*mean)


def limits(low: float, high: float, *, span: float = 0.0, most: float = math.inf) -> tuple[float, float]:
    """The ends of an axis: a little beyond the values, at least `span` apart, within 0 and `most` if the values are."""
    least = max(span, 1e-9 * max(abs(low), abs(high))) if span else 0.1 * abs(high) or 1.0  # a float has 16 digits
    room = max(0.08 * (high - low), (least - (high - low)) / 2 if span or high == low else 0.0)
    return (max(0.0, low - room) if low >= 0 else low - room), max(high, min(most, high + room))


def ticks(low: float, high: float, count: int = TICKS) -> Ticks:
    """About `count` round positions between two ends, with the shortest labels that differ."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    gap = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    places = [gap * number for number in range(math.ceil(low / gap - 1e-9), math.floor(high / gap + 1e-9) + 1)]
    decimals = max(0, -math.floor(math.log10(gap) + 1e-9))
    decimals += round(gap * 10**decimals, 6) % 1 != 0  # 2.5, 0.25
    if decimals > 4 or max(map(abs, places), default=0.0) >= 1e5:
        return Ticks(places, [_scientific(place) for place in places])
    return Ticks(places, [f"{place:,.{decimals}f}" for place in places])


def shown(value: float) -> str:
    """A figure in four digits or fewer."""
    if value and not 1e-3 <= abs(value) < 1e5:
        return _scientific(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) >= 10 else f"{value:.3f}"


def _scientific(value: float) -> str:
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return "0" if value == 0 else f"{mantissa}e{int(exponent)}"
