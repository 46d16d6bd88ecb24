"""Measures of pictures with known properties, and the facts that are derived from them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from aesr1.errors import AesError
from aesr1.facts.measured_facts import PHOTOGRAPHS, SCENES, facts_of
from aesr1.images.measure import MEASURE_NAMES, Measurements, as_vector, measure
from aesr1.tiny.scenes import Scene, draw_scene

Pixels = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def plain(red: int, green: int, blue: int, *, shape: tuple[int, int] = (96, 128)) -> Pixels:
    return np.full((*shape, 3), (red, green, blue), dtype=np.uint8)


def halves(first: tuple[int, int, int], second: tuple[int, int, int]) -> Pixels:
    """Two colours side by side."""
    return np.concatenate([plain(*first), plain(*second)], axis=1)


def leaning(degrees: float) -> Pixels:
    """Light above dark; the border turned clockwise, so that it falls towards the right."""
    across, down = np.meshgrid(np.arange(200) - 99.5, np.arange(150) - 74.5)
    below = down - across * np.tan(np.radians(degrees))
    level = (200 - 120 * np.clip(below + 0.5, 0, 1)).astype(np.uint8)
    return np.repeat(level[..., None], 3, axis=2)


def noisy(deviation: float, *, grey: bool = False) -> Pixels:
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((200, 250, 1 if grey else 3)) * deviation
    return np.asarray(np.clip((0.5 + np.repeat(noise, 3 if grey else 1, axis=2)) * 255 + 0.5, 0, 255), dtype=np.uint8)


SCENE = Scene(
    style="poster",
    subject="house",
    shape=(224, 224),
    x=1 / 3,
    y=0.66,
    size=0.25,
    horizon=0.62,
    tilt=0.0,
    exposure=0.0,
    contrast=1.0,
    hue=0.58,
    clash=0.0,
    saturation=0.55,
    blur=0.0,
    noise=0.0,
    clutter=0,
    seed=4,
)
"""A picture without faults."""


@pytest.mark.parametrize(
    ("level", "exposure", "shadows", "highlights"), [(0, -1.0, 1, 0), (255, 1.0, 0, 1), (128, 0.0039, 0, 0)]
)
def test_a_plain_picture_has_its_lightness_and_nothing_else(
    level: int, exposure: float, shadows: int, highlights: int
) -> None:
    measured = measure(plain(level, level, level))
    assert measured.exposure == pytest.approx(exposure, abs=1e-3)
    assert (measured.shadows_clipped, measured.highlights_clipped) == (shadows, highlights)
    nothing = ("contrast", "saturation", "colourfulness", "warmth", "clash", "sharpness", "grain", "tilt", "clutter")
    assert {name: getattr(measured, name) for name in nothing} == pytest.approx(dict.fromkeys(nothing, 0.0), abs=1e-4)
    assert [measured.subject_x, measured.subject_y, measured.symmetry] == pytest.approx([0.5, 0.5, 1.0], abs=1e-3)


def test_half_black_half_white_is_all_contrast_and_no_symmetry() -> None:
    measured = measure(halves((0, 0, 0), (255, 255, 255)))
    assert measured.exposure == pytest.approx(0, abs=1e-3)
    assert measured.contrast == pytest.approx(1, abs=0.01)
    assert (measured.shadows_clipped, measured.highlights_clipped) == (0.5, 0.5)
    assert measured.symmetry == pytest.approx(0, abs=0.05)
    assert measured.sharpness == pytest.approx(0.64, abs=0.02)


def test_a_ramp_spans_its_percentiles() -> None:
    ramp = np.repeat(np.tile(np.linspace(0, 255, 256), (128, 1))[..., None], 3, axis=2).astype(np.uint8)
    measured = measure(ramp)
    assert measured.contrast == pytest.approx(0.95**0.5 - 0.05**0.5, abs=0.02)
    assert measured.exposure == pytest.approx(0, abs=0.01)
    assert measured.sharpness < 0.1


@pytest.mark.parametrize(
    ("colour", "warmth"), [((255, 0, 0), 0.98), ((255, 128, 0), 0.91), ((0, 255, 255), -0.98), ((0, 0, 255), -0.66)]
)
def test_pure_hues_are_saturated_and_warm_or_cool(colour: tuple[int, int, int], warmth: float) -> None:
    measured = measure(plain(*colour))
    assert measured.saturation == pytest.approx(1, abs=0.01)
    assert measured.warmth == pytest.approx(warmth, abs=0.05)


def test_hasler_and_suesstrunk_of_red_and_green_by_hand() -> None:
    # R−G: ±255, spread 255, mean 0; (R+G)/2−B: 127.5 everywhere
    assert measure(halves((255, 0, 0), (0, 255, 0))).colourfulness == pytest.approx((255 + 0.3 * 127.5) / 109, rel=0.01)


def test_hues_a_quarter_circle_apart_clash_and_near_or_opposite_ones_agree() -> None:
    def clash(spot: tuple[int, int, int]) -> float:
        picture = plain(200, 100, 100)
        picture[40:60, 30:50] = spot
        return measure(picture).clash

    assert clash((150, 200, 100)) > 0.75
    assert clash((100, 200, 200)) < 0.25
    assert clash((200, 60, 60)) < 0.1


@pytest.mark.parametrize("degrees", [-12.0, -5.0, -1.5, 0.0, 3.0, 8.0, 14.0])
def test_a_leaning_edge_is_measured_in_both_directions(degrees: float) -> None:
    measured = measure(leaning(degrees))
    assert measured.tilt == pytest.approx(degrees, abs=0.6)
    assert measured.tilt_confidence > 0.6


def test_a_steep_diagonal_is_not_a_horizon() -> None:
    measured = measure(leaning(40))
    assert (measured.tilt, measured.tilt_confidence) == (0, 0)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("deviation", [0.01, 0.03, 0.08, 0.14])
def test_gaussian_noise_is_recovered(deviation: float, grey: bool) -> None:
    assert measure(noisy(deviation, grey=grey)).grain == pytest.approx(deviation, rel=0.15)


def test_grain_is_not_taken_for_sharpness() -> None:
    blurred = [measure(draw_scene(replace(SCENE, blur=2.5, noise=noise))).sharpness for noise in (0.0, 0.05, 0.1)]
    assert max(blurred) < 0.3
    assert max(blurred) - min(blurred) < 0.1


def test_sharpness_falls_and_grain_vanishes_with_blur() -> None:
    sharp = draw_scene(replace(SCENE, noise=0.05, clutter=4))
    measured = [measure(sharp.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 0.7, 1.5, 2.5, 4)]
    sharpness, grain = [m.sharpness for m in measured], [m.grain for m in measured]
    assert sharpness == sorted(sharpness, reverse=True)
    assert grain == sorted(grain, reverse=True)
    assert sharpness[0] > 0.6
    assert sharpness[-1] < 0.15


def test_the_position_of_the_subject_is_measured() -> None:
    for x in (0.2, 0.5, 0.8):
        assert measure(draw_scene(replace(SCENE, x=x))).subject_x == pytest.approx(x, abs=0.12)


def test_more_things_are_more_clutter() -> None:
    rows = [measure(draw_scene(replace(SCENE, clutter=count))).clutter for count in (0, 4, 9)]
    assert rows == sorted(set(rows))


@pytest.mark.parametrize("shape", [(8, 8), (8, 400), (400, 8), (9, 31)])
def test_small_and_narrow_pictures_give_finite_numbers(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for picture in (random, plain(7, 7, 7, shape=shape)):
        vector = as_vector(measure(picture))
        assert vector.shape == (len(MEASURE_NAMES),)
        assert np.isfinite(vector).all()


def test_a_picture_of_seven_pixels_is_refused() -> None:
    with pytest.raises(AesError, match="7 × 20 pixels"):
        measure(plain(0, 0, 0, shape=(20, 7)))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_every_pillow_mode_is_read(mode: str) -> None:
    assert np.isfinite(as_vector(measure(Image.fromarray(leaning(4)).convert(mode)))).all()


def test_the_same_picture_gives_the_same_numbers_as_array_and_as_image() -> None:
    picture = draw_scene(SCENE)
    assert measure(picture) == measure(np.asarray(picture)) == measure(picture)


def test_a_large_picture_is_shrunk_before_it_is_measured() -> None:
    small = draw_scene(SCENE)
    large = small.resize((1120, 1120), Image.Resampling.BICUBIC)
    assert measure(large).exposure == pytest.approx(measure(small).exposure, abs=0.02)
    assert measure(large).subject_x == pytest.approx(measure(small).subject_x, abs=0.03)


STEPS: list[tuple[str, object, dict[str, Any]]] = [
    ("place", "left", {"x": 0.3}),
    ("place", "middle", {"x": 0.5}),
    ("place", "right", {"x": 0.7}),
    ("place", "edge", {"x": 0.1}),
    ("tilt", 0, {}),
    ("tilt", 1, {"tilt": -4.5}),
    ("tilt", 2, {"tilt": 11.0}),
    ("clutter", 0, {"subject": "hill"}),
    ("clutter", 1, {"clutter": 2}),
    ("clutter", 2, {"clutter": 9}),
    ("exposure", -2, {"exposure": -1.8}),
    ("exposure", -1, {"exposure": -0.7}),
    ("exposure", 0, {}),
    ("exposure", 1, {"exposure": 0.6}),
    ("exposure", 2, {"exposure": 1.8}),
    ("contrast", 0, {"contrast": 0.3}),
    ("contrast", 1, {"contrast": 0.55}),
    ("contrast", 2, {}),
    ("saturation", 0, {"saturation": 0.05}),
    ("saturation", 1, {}),
    ("saturation", 2, {"saturation": 1.0}),
    ("clash", 0, {}),
    ("clash", 1, {"clash": 0.5}),
    ("clash", 2, {"clash": 1.0}),
    ("focus", 0, {}),
    ("focus", 1, {"blur": 1.1}),
    ("focus", 2, {"blur": 3.0}),
    ("grain", 0, {}),
    ("grain", 1, {"noise": 0.035}),
    ("grain", 2, {"noise": 0.1}),
    ("warmth", "warm", {"hue": 0.03}),
    ("warmth", "neutral", {"hue": 0.25}),
    ("warmth", "cool", {}),
]
"""A finding, a step of it, and what makes the faultless scene reach it."""


@pytest.mark.parametrize(("finding", "step", "change"), STEPS)
def test_every_step_is_reached_by_a_scene_made_for_it(finding: str, step: object, change: dict[str, Any]) -> None:
    seen = facts_of(measure(draw_scene(replace(SCENE, **change))), thresholds=SCENES)
    assert getattr(seen, finding) == step


def test_a_tilt_of_low_confidence_is_not_reported() -> None:
    nothing = Measurements(*[0.0] * len(MEASURE_NAMES))
    assert facts_of(replace(nothing, tilt=9.0, tilt_confidence=0.4)).tilt == 0
    assert facts_of(replace(nothing, tilt=9.0, tilt_confidence=0.9)).tilt == 2


def test_thresholds_rise() -> None:
    for thresholds in (SCENES, PHOTOGRAPHS):
        for bounds in vars(thresholds).values():
            assert not isinstance(bounds, tuple) or list(bounds) == sorted(set(bounds))
