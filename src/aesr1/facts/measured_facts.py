"""Turns the measurements of a picture into the facts that a critique can name.

Drawn scenes and photographs need different thresholds, above all for contrast and clutter: few photographs are as
flat and empty as a drawn scene.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from PIL import Image

from aesr1.images.measure import Measurements, measure
from aesr1.tiny.scenes import DOMAIN as DRAWN


@dataclass(frozen=True)
class PictureFacts:
    """What a picture shows, in steps that a person can name."""

    place: str  # of the subject: left, middle, right, edge
    tilt: int  # 0 level, 1 a little, 2 badly
    clutter: int  # 0 none, 1 some, 2 much
    exposure: int  # −2 very dark … 0 right … 2 very bright
    contrast: int  # 0 flat, 1 soft, 2 strong
    saturation: int  # 0 pale, 1 natural, 2 vivid
    clash: int  # 0 the colours agree, 1 uneasy, 2 clash
    focus: int  # 0 sharp, 1 soft, 2 blurred
    grain: int  # 0 clean, 1 some, 2 heavy
    warmth: str  # of the colours: warm, neutral, cool
    photograph: bool = False  # else a drawn scene
    subject: str | None = None  # "the dog", where it is known


@dataclass(frozen=True)
class Thresholds:
    """The bounds between steps, rising, in the units of `Measurements`."""

    place: tuple[float, float, float, float]  # subject_x: edge | left | middle | right | edge
    tilt: tuple[float, float]  # degrees
    tilt_confidence: float  # a weaker line does not count as a horizon
    clutter: tuple[float, float]
    exposure: tuple[float, float, float, float]
    contrast: tuple[float, float]
    saturation: tuple[float, float]
    clash: tuple[float, float]
    sharpness: tuple[float, float]  # blurred | soft | sharp
    grain: tuple[float, float]
    warmth: tuple[float, float]  # cool | neutral | warm


SCENES = Thresholds(
    place=(0.25, 0.48, 0.57, 0.75),
    tilt=(2.4, 7.2),
    tilt_confidence=0.25,
    clutter=(0.22, 0.39),
    exposure=(-0.34, -0.03, 0.45, 0.8),
    contrast=(0.123, 0.2),
    saturation=(0.115, 0.333),
    clash=(0.4, 0.65),
    sharpness=(0.28, 0.595),
    grain=(0.0187, 0.055),
    warmth=(-0.3, 0.4),
)
"""Each step as common as among 600 drawn scenes whose truth is known (bench/measure_on_scenes.py has the agreement)."""

PHOTOGRAPHS = Thresholds(
    place=(0.25, 0.45, 0.55, 0.75),
    tilt=(2.4, 7.2),
    tilt_confidence=0.5,
    clutter=(0.45, 0.66),
    exposure=(-0.5, -0.25, 0.25, 0.6),
    contrast=(0.33, 0.48),
    saturation=(0.115, 0.333),
    clash=(0.33, 0.55),
    sharpness=(0.35, 0.5),
    grain=(0.012, 0.045),
    warmth=(-0.2, 0.4),
)
"""Chosen by eye and by distribution over the 553 photographs of OASIS (400 × 320); there are no labels for them."""


def facts_of(measurements: Measurements, *, thresholds: Thresholds = PHOTOGRAPHS) -> PictureFacts:
    """The measurements in steps. The thresholds must fit the kind of picture."""
    level = measurements.tilt_confidence < thresholds.tilt_confidence
    return PictureFacts(
        place=("edge", "left", "middle", "right", "edge")[_step(measurements.subject_x, thresholds.place)],
        tilt=0 if level else _step(abs(measurements.tilt), thresholds.tilt),
        clutter=_step(measurements.clutter, thresholds.clutter),
        exposure=_step(measurements.exposure, thresholds.exposure) - 2,
        contrast=_step(measurements.contrast, thresholds.contrast),
        saturation=_step(measurements.saturation, thresholds.saturation),
        clash=_step(measurements.clash, thresholds.clash),
        focus=2 - _step(measurements.sharpness, thresholds.sharpness),
        grain=_step(measurements.grain, thresholds.grain),
        warmth=("cool", "neutral", "warm")[_step(measurements.warmth, thresholds.warmth)],
    )


def measure_facts(picture: Image.Image, *, domain: str) -> PictureFacts:
    """Measure a picture and return its facts, with the thresholds of its kind. AesError where it is too small."""
    return facts_in(measure(picture), domain=domain)


def facts_in(measured: Measurements, *, domain: str) -> PictureFacts:
    """The facts in a picture's measurements, with the thresholds of its kind."""
    if domain == DRAWN:
        return facts_of(measured, thresholds=SCENES)
    return replace(facts_of(measured, thresholds=PHOTOGRAPHS), photograph=True)


def _step(value: float, bounds: tuple[float, ...]) -> int:
    return sum(value > bound for bound in bounds)
