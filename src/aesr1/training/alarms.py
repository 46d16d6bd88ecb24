"""Alarms of a training run: one table of checks of its figures, each with advice. Pure functions.

Rows are those of transformers' `log_history`: one dictionary for each log, with `step`. A figure may be missing or
None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

LogRow = Mapping[str, Any]
Finding = tuple[str, str]
"""A problem and the advice."""
RAISE_BETA = "raise beta fourfold (0.01 → 0.04)"


@dataclass(frozen=True)
class Alarm:
    """A problem that a person should look at."""

    step: int  # of the log that raised it
    name: str  # the figure that it is about
    problem: str
    advice: str


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the alarms. Means of several logs are compared, so that one odd batch raises no alarm."""

    shortest: int = 3  # logs in one mean: 15 steps at the recipes' logging_steps
    longest: int = 20  # a tenth of all logs, but no more: averaging longer would see a sudden fall too late
    warm_up: int = 5  # logs before levels count: a model may begin badly
    unreadable: float = 0.2  # share of readable replies that is too low already in the first log
    readable: float = 0.9  # below in all of the last logs, advantage goes to form; healthy runs keep .93 …
    readable_gain: float = 0.1  # … unless the share has risen by so much since the start
    readable_fall: float = 0.15  # healthy runs waver by .06
    collapsed: float = 0.02  # standard deviation of scores; the human ones' is .08 on AVA, .2 on drawn scenes …
    collapse: float = 1 / 3  # … and of the widest only so much; healthy runs keep .45
    one_value: float = 0.01  # standard deviation below which it need not have fallen: the last digit of a reply
    no_spread: float = 0.9  # share of groups whose replies all earn the same that is too high already in the first log
    evenness: float = 0.5  # the same in the mean of some logs; healthy runs stay below .17
    kl: float = 0.12  # a token, median; healthy runs end at .02 to .08, from .13 on the held-out SRCC fell
    clipped: float = 0.2  # share of replies cut at the cap; healthy runs stay below .04
    near_cap: float = 0.8  # mean length by the cap; the longest replies of a batch have 1.2 to 1.4 times the mean …
    cap_approach: float = 0.5  # … after so much of the way from the shortest mean; healthy runs waver by .1 of it
    entropy: float = 0.1  # nats a token: next to no choice is left …
    entropy_share: float = 0.25  # … and of the highest only so much; healthy runs keep .8
    srcc_fall: float = 0.05  # twice in a row; on 128 images two validations of one model differ by .01 to .02
    loss_rise: float = 1.3  # times the lowest, in a cold start …
    loss_gap: float = 0.05  # … and so far above it: replies then are 5 % less likely a token, below is memorizing …
    loss_noise: float = 6.0  # … and so many standard errors: of 150 means the lowest lies 3 too low, the last as high


DEFAULT = Thresholds()


def active_alarms(rows: Sequence[LogRow], thresholds: Thresholds = DEFAULT) -> list[Alarm]:
    """The alarms that are active after the last of these rows."""
    results = ((name, check(rows, thresholds)) for name, check in ALARMS.items())
    return [Alarm(int(rows[-1]["step"]), name, *finding) for name, finding in results if finding]


def not_finite(row: LogRow, name: str) -> bool:
    """Whether a figure is NaN or infinite."""
    return row.get(name) is not None and not math.isfinite(row[name])


def _loss(rows: Sequence[LogRow], limits: Thresholds) -> Finding | None:
    last = _last(rows, "loss")
    if not_finite(last, "loss"):
        return f"the loss is {last['loss']}", f"{_halve(rows)}; where fp16 is true, set bf16: true in its place"
    if any("reward" in row for row in rows):  # RAPO's loss means nothing: it starts at 0 and grows with the KL
        return None
    means = _means(rows, "loss", limits)
    if len(means) <= limits.warm_up:
        return None
    now, lowest = means[-1], min(means)
    error = _noise(_values(rows, "loss")) / math.sqrt(_width(rows, "loss", limits))
    if now <= limits.loss_rise * lowest or now - lowest <= max(limits.loss_gap, limits.loss_noise * error):
        return None
    return f"the loss rose from {lowest:.3g} to {now:.3g}", f"{_halve(rows)}, or give warmup_steps"


def _gradient(rows: Sequence[LogRow], limits: Thresholds) -> Finding | None:
    last = _last(rows, "grad_norm")
    if not not_finite(last, "grad_norm"):
        return None
    return (
        f"the gradient's norm is {last['grad_norm']}",
        f"{_halve(rows)}; under fp16 such a step is skipped and one does no harm, else the next loss is NaN",
    )


def _readable(rows: Sequence[LogRow], limits: Thresholds) -> Finding | None:
    means = _means(rows, "readable", limits)
    if (share := _latest(rows, "readable", limits)) is not None and share < limits.unreadable:
        return (
            f"only {share:.0%} of replies are readable",
            "stop and start from a longer cold start: nearly all of the reward is for form now; read some replies "
            "(log_completions: true), and raise max_completion_length if they are cut",
        )
    if not means:
        return None
    now, best = means[-1], max(means)
    if now < best - limits.readable_fall:
        return f"readable replies fell from {best:.0%} to {now:.0%}", f"{_halve(rows)}, or {RAISE_BETA}"
    values = _values(rows, "readable")
    late = len(values) >= limits.warm_up
    if late and max(values[-limits.warm_up :]) < min(limits.readable, means[0] + limits.readable_gain):
        return (
            f"only {now:.0%} of replies are readable, and the share does not rise",
            "start from a longer cold start (more rationales or num_train_epochs): as it is, much of the "
            "advantage goes to form; or raise max_completion_length if replies are cut",
        )
    return None


def _collapse(rows: Sequence[LogRow], limits: Thresholds) -> Finding | None:
    means = _means(rows, "score/std", limits)
    if not means:
        return None
    now, widest = means[-1], max(means)
    if now < min(limits.collapsed, limits.collapse * widest):
        return (
            f"scores collapse to one value: their standard deviation fell from {widest:.3f} to {now:.3f}",
            f"weigh relative more in reward_weights (a constant score wins nothing of it), or {_halve(rows)}",
        )
    if len(_values(rows, "score/std")) >= limits.warm_up and now < limits.one_value:
        return (
            f"scores are one value from the start: their standard deviation is {now:.3f}",
            "start from a longer cold start, of rationales whose scores are spread over the scale, or raise "
            "temperature: equal replies have no advantage",
        )
    return None


def _zero_advantage(rows: Sequence[LogRow], limits: Thresholds) -> Finding | None:
    means = _means(rows, "frac_reward_zero_std", limits)
    share = _latest(rows, "frac_reward_zero_std", limits)
    if share is None or share <= (limits.evenness if means else limits.no_spread):
        return None
    return (
        f"{share:.0%} of groups have zero advantage: all their replies earn the same",
        "double num_generations or raise temperature; the absolute reward separates near from far, binary does not",
    )


def _kl(rows: Sequence[LogRow], limits: Thresholds) -> Finding | None:
    # A few tokens can make one log's KL a hundredfold: the middle of three logs is not moved by that.
    values = _values(rows, "kl")[-limits.shortest :]
    if len(values) < limits.shortest or (now := median(values)) <= limits.kl:
        return None
    return (
        f"KL from the starting model is {now:.2f} a token, above {limits.kl}",
        f"{_halve(rows)}, or {RAISE_BETA}; warmup_steps: 5 limits the first steps",
    )


def _clipped(rows: Sequence[LogRow], limits: Thresholds) -> Finding | None:
    means = _means(rows, "completions/clipped_ratio", limits)
    if not means or means[-1] <= limits.clipped:
        return None
    return (
        f"{means[-1]:.0%} of replies are cut at the longest length, and a cut one is unreadable",
        _double(rows),
    )


def _growing(rows: Sequence[LogRow], limits: Thresholds) -> Finding | None:
    """An early alarm: the reward says nothing about replies that are cut."""
    means, cap = _means(rows, "completions/mean_length", limits), _values(rows, "completions/cap")
    if not means or not cap:
        return None
    now, shortest = means[-1], min(means)
    if now < max(limits.near_cap * cap[-1], shortest + limits.cap_approach * (cap[-1] - shortest)):
        return None
    return (
        f"replies grow to the longest length: {now:.0f} tokens in the mean, after {shortest:.0f}, of {cap[-1]:.0f}",
        f"read some: if they say more, {_double(rows)}; if they only grow, {RAISE_BETA}, or set loss_type: dr_grpo "
        "(grpo's mean over each reply makes long bad ones cheap)",
    )


def _entropy(rows: Sequence[LogRow], limits: Thresholds) -> Finding | None:
    means = _means(rows, "entropy", limits)
    if not any("reward" in row for row in rows) or not means:  # in a cold start entropy should fall
        return None
    if means[-1] >= min(limits.entropy, limits.entropy_share * max(means)):
        return None
    return (
        f"entropy fell from {max(means):.2f} to {means[-1]:.3f} nats a token: replies are nearly the same",
        f"raise temperature (to 1.2) or epsilon_high (to 0.35), or {_halve(rows)}",
    )


def _validation(rows: Sequence[LogRow], limits: Thresholds) -> Finding | None:
    judged = [row for row in rows if row.get("validation/srcc") is not None]
    if len(judged) < 3:
        return None
    best = max(judged[:-2], key=lambda row: float(row["validation/srcc"]))
    high, last = best["validation/srcc"], [row["validation/srcc"] for row in judged[-2:]]
    if max(last) >= high - limits.srcc_fall:
        return None
    then = _means([row for row in rows if row["step"] <= best["step"]], "reward", limits)
    now = _means(rows, "reward", limits)
    rose = f", although the reward rose from {then[-1]:.2f} to {now[-1]:.2f}" if then and now[-1] > then[-1] else ""
    return (
        f"SRCC on held-out images fell from {high:.3f} (step {best['step']}) to {last[-1]:.3f}{rose}",
        f"judge the checkpoint nearest step {best['step']} (save_total_limit keeps more of them); {_halve(rows)}, "
        f"or {RAISE_BETA}",
    )


def _double(rows: Sequence[LogRow]) -> str:
    lengths = _values(rows, "completions/cap") or _values(rows, "completions/max_length")
    cap = f" (from {max(lengths):.0f} to {2 * max(lengths):.0f})" if lengths else ""
    return f"double max_completion_length{cap}"


def _halve(rows: Sequence[LogRow]) -> str:
    rates = _values(rows, "learning_rate")
    return f"halve learning_rate (to {max(rates) / 2:.2g})" if rates else "halve learning_rate"


def _last(rows: Sequence[LogRow], name: str) -> LogRow:
    return next((row for row in reversed(rows) if row.get(name) is not None), {})


def _values(rows: Sequence[LogRow], name: str) -> list[float]:
    return [float(row[name]) for row in rows if row.get(name) is not None and math.isfinite(row[name])]


def _means(rows: Sequence[LogRow], name: str, limits: Thresholds) -> list[float]:
    """Running means of a figure, oldest first; empty if there are too few values."""
    values, width = _values(rows, name), _width(rows, name, limits)
    return [math.fsum(values[end - width : end]) / width for end in range(width, len(values) + 1)]


def _latest(rows: Sequence[LogRow], name: str, limits: Thresholds) -> float | None:
    """The last running mean; of the first few logs, the mean of all. None if there is no value."""
    values = _values(rows, name)[-_width(rows, name, limits) :]
    return math.fsum(values) / len(values) if values else None


def _width(rows: Sequence[LogRow], name: str, limits: Thresholds) -> int:
    return min(limits.longest, max(limits.shortest, len(_values(rows, name)) // 10))


def _noise(values: Sequence[float]) -> float:
    """Standard deviation of three or more values about a smooth curve, from their second differences.

    Of a normal error the median of |x₁ − 2x₂ + x₃| is .6745 √6 standard deviations; a slope or a jump moves it little.
    """
    bends = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return median(bends) / (0.6745 * math.sqrt(6))


ALARMS: dict[str, Callable[[Sequence[LogRow], Thresholds], Finding | None]] = {
    "loss": _loss,
    "grad_norm": _gradient,
    "readable": _readable,
    "score/std": _collapse,
    "frac_reward_zero_std": _zero_advantage,
    "kl": _kl,
    "completions/clipped_ratio": _clipped,
    "completions/mean_length": _growing,
    "entropy": _entropy,
    "validation/srcc": _validation,
}
"""The figure that an alarm is about → its check. A new alarm is a function and an entry here."""
