"""The embedded critic: a teacher that needs no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image

from aesr1.aescot.phrases import PictureFacts, write_critique

Critic = Callable[[Image.Image, float, PictureFacts, np.random.Generator], str]
"""picture, human score 0–1 (a secret), findings of the picture, randomness of the attempt → critique."""

SLIP_RATE = 0.12


def embedded(picture: Image.Image, score: float, findings: PictureFacts, rng: np.random.Generator) -> str:
    """A teacher that needs no model: prose from what was measured, toned by the score.

    Like any teacher it slips now and then, one attempt in eight: it names a number, misses the verdict or
    misreads the picture, so that the filters meet in the demo what they are for.
    """
    if rng.random() >= SLIP_RATE:
        return write_critique(findings, score, rng)
    slip = rng.integers(3)
    if slip == 0:
        return write_critique(findings, score, rng) + f" I would give it {score * 10:.0f} of 10."
    if slip == 1:
        return write_critique(findings, 1 - score, rng)
    return write_critique(replace(findings, exposure=int(rng.choice([-2, 2])), focus=2 - findings.focus), score, rng)
