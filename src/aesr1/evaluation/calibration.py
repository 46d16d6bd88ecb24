"""Whether scores are too high or too low: bins of calibration, and residuals by data set and level. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata, t

from aesr1.contract import LEVELS, level_of
from aesr1.intervals import Interval
from aesr1.metrics import Column

BINS = 10


@dataclass(frozen=True)
class Mean:
    """The mean of n values; of fewer than two there is no interval."""

    n: int
    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Bin:
    """Pictures of about the same predicted score."""

    predicted: float  # the mean
    human: Mean


def mean_of(values: Column) -> Mean:
    """The mean of (n,), n ≥ 1, with Student's 95 % interval."""
    n, value = len(values), float(values.mean())
    if n < 2:
        return Mean(n, value, None)
    half = float(t.ppf(0.975, n - 1) * values.std(ddof=1)) / math.sqrt(n)
    return Mean(n, value, Interval(value, value - half, value + half))


def calibration_bins(predicted: Column, human: Column, *, bins: int = BINS) -> list[Bin]:
    """Up to `bins` bins of equal count by the predicted score, both (n,), lowest first.

    Equal scores stay together: where there are many, the bins are of unequal count, and fewer.
    """
    if not len(predicted):
        return []
    places = ((rankdata(predicted) - 0.5) * bins / len(predicted)).astype(int)
    chosen = [places == place for place in np.unique(places)]
    return [Bin(float(predicted[of_bin].mean()), mean_of(human[of_bin])) for of_bin in chosen]


def residuals(predicted: Column, human: Column) -> dict[str, Mean]:
    """The mean of predicted − human, both (n,), over "all" and over each level of the human score that occurs.

    A judge that is well calibrated but not perfect is too high for the bad pictures and too low for the good ones.
    """
    levels = np.array([level_of(score) for score in human])
    groups = {"all": np.full(len(human), True)} | {level: levels == level for level in LEVELS}
    return {name: mean_of((predicted - human)[group]) for name, group in groups.items() if group.any()}
