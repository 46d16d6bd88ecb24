"""Simulated people who rate scenes on 1–10, so that mean, rater_std and votes exist as in AVA."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from aesr1.tiny.scenes import Scene

LOWEST, HIGHEST = 1, 10


def infinite_mos(scene: Scene) -> float:
    """The mean opinion of infinitely many raters, in [0, 1]: a logistic function of a weighted sum of faults.

    The raters like a subject on a third, a level horizon, correct exposure, colours that agree, sharpness and few
    stray things. The model never sees these weights.
    """
    off_third = min(abs(scene.x - 1 / 3), abs(scene.x - 2 / 3)) / 0.17
    faults = (
        0.7 * min(1.0, off_third)
        + 0.8 * min(1.0, abs(scene.tilt) / 9)
        + 0.6 * min(1.0, abs(scene.size - 0.2) / 0.13)
        + 1.4 * min(1.0, abs(scene.exposure) / 1.4)
        + 0.9 * (1 - scene.contrast) / 0.6
        + 1.0 * scene.clash
        + 0.7 * min(1.0, abs(scene.saturation - 0.55) / 0.45)
        + 1.2 * min(1.0, scene.blur / 3)
        + 0.9 * min(1.0, scene.noise / 0.1)
        + 1.0 * min(1.0, scene.clutter / 7)
    )
    return 1 / (1 + math.exp(0.8 * (faults - 3.4)))


def cast_votes(scene: Scene, rng: np.random.Generator) -> NDArray[np.int64]:
    """(10,) how many of 20–200 raters gave 1, 2 … 10. Each mark has a rater bias and random noise."""
    raters = int(rng.integers(20, 201))
    opinion = LOWEST + (HIGHEST - LOWEST) * infinite_mos(scene)
    marks = opinion + rng.normal(0, 0.7, raters) + rng.normal(0, 1.2, raters)
    votes = np.clip(np.rint(marks), LOWEST, HIGHEST).astype(int)
    return np.bincount(votes, minlength=HIGHEST + 1)[LOWEST:]
