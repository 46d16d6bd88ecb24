"""The embedded critic: a teacher that needs no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image

from aesr1.aescot.photo_phrases import criticise_photo
from aesr1.aescot.phrases import verdict_of, write_critique
from aesr1.facts.measured_facts import PictureFacts

Critic = Callable[[Image.Image, float, PictureFacts, np.random.Generator], str]
"""picture, human score 0–1 (a secret), findings of the picture, randomness of the attempt → critique."""

SLIP_RATE = 0.12


def embedded(picture: Image.Image, score: float, findings: PictureFacts, rng: np.random.Generator) -> str:
    """Prose from measured facts, with a tone and a verdict that fit the score.

    One attempt in eight has an error on purpose: it names a number, misses the verdict or contradicts the
    picture, so that the filters have something to refuse.
    """
    write = criticise_photo if findings.photograph else write_critique
    if rng.random() >= SLIP_RATE:
        return write(findings, score, rng)
    slip = rng.integers(3)
    if slip == 0:
        return write(findings, score, rng) + f" I would give it {score * 10:.0f} of 10."
    if slip == 1:
        if findings.photograph:  # what is said of photographs has no verdict of its own
            return f"{write(findings, score, rng)} {verdict_of(0.1 if score > 0.5 else 0.9, rng)}."
        return write(findings, 1 - score, rng)
    return write(replace(findings, exposure=int(rng.choice([-2, 2])), focus=2 - findings.focus), score, rng)
