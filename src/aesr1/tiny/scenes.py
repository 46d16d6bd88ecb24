"""Drawn pictures whose every visible property is known.

A scene has a sky, a ground, one subject, a light and some clutter. Its faults depend on the skill of one simulated
photographer, so they occur together, as in real albums: a tilted picture is more often blurred too.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

SUBJECTS = ("tree", "house", "boat", "tower", "hill", "person")
STYLES = ("natural", "poster", "misty", "night", "sketch")
SHAPES = ((256, 192), (224, 224), (192, 256), (272, 176))
"""Width and height in pixels."""

LAYERS = ("sky", "ground", "light", "subject", "stray")
"""What a pixel of a scene shows; later layers are in front."""

DOMAIN = "scenes"
"""The data set's name in ratings."""

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """The content of a picture and how it was taken. Lengths are relative to the side of the picture, 0–1."""

    style: str
    subject: str
    shape: tuple[int, int]
    x: float
    y: float
    size: float
    horizon: float
    tilt: float  # degrees; positive: the horizon turns clockwise
    exposure: float  # stops; 0 is correct
    contrast: float  # 1 is full
    hue: float  # of the sky, 0–1
    clash: float  # 0: the colours of subject and sky agree; 1: they clash
    saturation: float
    blur: float  # Gaussian radius in pixels of a 224-pixel side
    noise: float  # standard deviation of the grain; pixel values are 0–1
    clutter: int  # number of stray things in the picture
    seed: int  # of textures and stray things


FACTS = (
    ("x", 0.08, 0.92),
    ("y", 0.2, 0.85),
    ("size", 0.06, 0.36),
    ("horizon", 0.25, 0.8),
    ("tilt", -14.0, 14.0),
    ("exposure", -2.0, 2.0),
    ("contrast", 0.25, 1.0),
    ("hue", 0.0, 1.0),
    ("clash", 0.0, 1.0),
    ("saturation", 0.0, 1.0),
    ("blur", 0.0, 4.0),
    ("noise", 0.0, 0.14),
    ("clutter", 0.0, 9.0),
)
"""Every numeric property with its lower and upper bound."""


def facts(scene: Scene) -> dict[str, float]:
    """The numeric properties of a scene, each mapped from its bounds to 0–1."""
    return {name: min(1.0, max(0.0, (getattr(scene, name) - low) / (high - low))) for name, low, high in FACTS}


def sample_scene(rng: np.random.Generator, *, styles: tuple[str, ...] = STYLES[:3]) -> Scene:
    """Sample the properties of one scene. Faults depend on the photographer's skill; hue and place do not."""
    sloppiness = float(rng.beta(1.1, 1.1))

    def fault(scale: float) -> float:
        """A signed fault: large if sloppiness is high, small but not zero if it is low."""
        return float(np.clip(rng.normal(0.0, scale * (0.12 + 0.75 * sloppiness)), -scale * 1.4, scale * 1.4))

    third = float(rng.choice([1 / 3, 2 / 3]))
    horizon_third = float(rng.choice([0.38, 0.66]))
    horizon = float(np.clip(horizon_third + fault(0.16), 0.25, 0.8))
    return Scene(
        style=str(rng.choice(styles)),
        subject=str(rng.choice(SUBJECTS)),
        shape=SHAPES[int(rng.integers(len(SHAPES)))],
        x=float(np.clip(third + fault(0.3), 0.08, 0.92)),
        y=float(np.clip(horizon + rng.normal(0.04, 0.07), 0.2, 0.85)),
        size=float(np.clip(0.2 + fault(0.13), 0.06, 0.36)),
        horizon=horizon,
        tilt=float(np.clip(fault(10.0), -14.0, 14.0)),
        exposure=float(np.clip(fault(1.6), -2.0, 2.0)),
        contrast=float(np.clip(1.0 - abs(fault(0.6)), 0.25, 1.0)),
        hue=float(rng.random()),
        clash=float(np.clip(abs(fault(0.9)), 0.0, 1.0)),
        saturation=float(np.clip(0.55 + fault(0.5), 0.0, 1.0)),
        blur=float(np.clip(abs(fault(3.2)), 0.0, 4.0)),
        noise=float(np.clip(abs(fault(0.1)), 0.0, 0.14)),
        clutter=int(np.clip(round(abs(fault(7.0))), 0, 9)),
        seed=int(rng.integers(2**31)),
    )


def draw_scene(scene: Scene) -> Image.Image:
    """Draw a scene as an RGB picture of its shape; the same scene gives the same pixels."""
    rng = np.random.default_rng(scene.seed)
    width, height = scene.shape
    canvas = Image.fromarray(_sky_and_ground(scene, rng), "RGB")
    pencil = ImageDraw.Draw(canvas)
    _draw_light(scene, pencil, rng)
    _draw_subject(scene, pencil)
    for _ in range(scene.clutter):
        _draw_stray(scene, pencil, rng)
    if scene.blur > 0.05:
        canvas = canvas.filter(ImageFilter.GaussianBlur(scene.blur * math.sqrt(width * height) / 224))
    pixels = np.asarray(canvas, dtype=np.float32) / 255
    pixels = 0.5 + (pixels - 0.5) * scene.contrast
    pixels = pixels * np.float32(2.0 ** (scene.exposure * 0.8))
    if scene.noise > 0:
        pixels = pixels + rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(scene.noise)
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8), "RGB")


class _LayerDraw:
    """Draws every shape with the number of one layer instead of its colour."""

    def __init__(self, canvas: Image.Image, layer: str) -> None:
        self._pencil, self._number = ImageDraw.Draw(canvas), LAYERS.index(layer)

    def polygon(self, points: list[tuple[float, float]], **_: Any) -> None:
        self._pencil.polygon(points, fill=self._number)

    def ellipse(self, box: tuple[float, float, float, float], **_: Any) -> None:
        self._pencil.ellipse(box, fill=self._number)

    def rectangle(self, box: tuple[float, float, float, float], **_: Any) -> None:
        self._pencil.rectangle(box, fill=self._number)


def draw_layers(scene: Scene) -> NDArray[np.uint8]:
    """(H, W) the layer of each pixel of `draw_scene`, as an index of `LAYERS`; blur and exposure are ignored."""
    rng = np.random.default_rng(scene.seed)
    _sky_and_ground(scene, rng)  # takes the same random numbers, so that stray things get the same places
    canvas = Image.fromarray((_below_horizon(scene) > 0).astype(np.uint8))
    _draw_light(scene, _LayerDraw(canvas, "light"), rng)
    _draw_subject(scene, _LayerDraw(canvas, "subject"))
    for _ in range(scene.clutter):
        _draw_stray(scene, _LayerDraw(canvas, "stray"), rng)
    return np.asarray(canvas)


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(1.0, max(0.0, saturation)), min(1.0, max(0.0, value)))
    return round(red * 255), round(green * 255), round(blue * 255)


def subject_hue(scene: Scene) -> float:
    """A hue at a quarter of the colour circle clashes most; equal (0) and opposite (½) hues agree."""
    return scene.hue + (0.5 if scene.seed % 2 else 0.0) + 0.25 * scene.clash * (1 if scene.seed % 4 < 2 else -1)


def _below_horizon(scene: Scene) -> NDArray[np.float64]:
    """(H, W) the distance of each pixel below the horizon, in picture heights; negative in the sky."""
    width, height = scene.shape
    across, down = np.meshgrid(np.linspace(-0.5, 0.5, width), np.linspace(0, 1, height))
    return np.asarray(down - scene.horizon - across * math.tan(math.radians(scene.tilt)) * width / height)


def _sky_and_ground(scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(H, W, 3) background: a sky that is lighter at the horizon, a striped ground, the horizon tilted."""
    width, height = scene.shape
    across, below = np.linspace(-0.5, 0.5, width), _below_horizon(scene)[..., None]
    night = scene.style == "night"
    top, bottom = (0.12, 0.35) if night else (0.62, 0.95)
    sky_high = np.array(_colour(scene.hue, scene.saturation, top))
    sky_low = np.array(_colour(scene.hue + 0.03, scene.saturation * 0.55, bottom))
    blend = 1.0 if scene.style == "poster" else np.clip(1 + below / max(scene.horizon, 0.1), 0, 1)
    sky = sky_high + (sky_low - sky_high) * blend
    ground_base = np.array(_colour(scene.hue + 0.06, scene.saturation * 0.8, 0.22 if night else 0.5), dtype=float)
    stripes = np.sin((below[..., 0] + 0.02) ** 2 * 260 + across * rng.uniform(-30, 30) + rng.uniform(0, 6))
    ground = ground_base * (1 + (0.0 if scene.style == "poster" else 0.22) * stripes[..., None])
    if scene.style == "misty":
        ground = ground + (sky_low - ground) * np.exp(-np.clip(below, 0, 1) * 6)
    if scene.style == "sketch":
        sky = 235 + 0 * sky
        ground = 205 + 30 * np.sign(stripes[..., None]) + 0 * ground
    grain = 1 + 0.05 * rng.standard_normal((height, width, 1))  # some texture, so that blur is visible everywhere
    return np.asarray(np.clip(np.where(below > 0, ground, sky) * grain, 0, 255), dtype=np.uint8)


def _to_pixels(scene: Scene, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Subject coordinates (unit: its size; origin: its foot; y down) → pixels, rotated by the tilt."""
    width, height = scene.shape
    unit = scene.size * math.sqrt(width * height)
    cos, sin = math.cos(math.radians(scene.tilt)), math.sin(math.radians(scene.tilt))
    return [
        (scene.x * width + unit * (px * cos - py * sin), scene.y * height + unit * (px * sin + py * cos))
        for px, py in points
    ]


def _oval(cx: float, cy: float, rx: float, ry: float, *, corners: int = 24) -> list[tuple[float, float]]:
    angles = [2 * math.pi * k / corners for k in range(corners)]
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


_PARTS: dict[str, list[tuple[list[tuple[float, float]], float]]] = {
    "tree": [([(-0.1, 0), (0.1, 0), (0.07, -0.7), (-0.07, -0.7)], 0.35), (_oval(0, -1.0, 0.5, 0.5), 0.7)],
    "house": [
        ([(-0.5, 0), (0.5, 0), (0.5, -0.6), (-0.5, -0.6)], 0.75),
        ([(-0.6, -0.6), (0.6, -0.6), (0, -1.1)], 0.45),
        ([(-0.12, 0), (0.12, 0), (0.12, -0.35), (-0.12, -0.35)], 0.25),
    ],
    "boat": [
        ([(-0.7, -0.2), (0.7, -0.2), (0.4, 0.1), (-0.4, 0.1)], 0.4),
        ([(0, -0.25), (0.55, -0.25), (0, -1.2)], 0.85),
    ],
    "tower": [
        ([(-0.2, 0), (0.2, 0), (0.13, -1.2), (-0.13, -1.2)], 0.65),
        ([(-0.2, -1.2), (0.2, -1.2), (0, -1.5)], 0.4),
    ],
    "hill": [
        ([(-1.0, 0), (1.0, 0), (0.25, -0.8), (-0.1, -0.95)], 0.55),
        ([(-0.3, -0.78), (0.22, -0.8), (-0.1, -0.95)], 0.9),
    ],
    "person": [
        ([(-0.18, 0), (0.18, 0), (0.22, -0.75), (-0.22, -0.75)], 0.55),
        (_oval(0, -0.95, 0.17, 0.19), 0.85),
    ],
}
"""The parts of each subject: an outline and the brightness of its colour."""


def _draw_subject(scene: Scene, pencil: ImageDraw.ImageDraw | _LayerDraw) -> None:
    dim = 0.6 if scene.style == "night" else 1.0
    for outline, value in _PARTS[scene.subject]:
        points = _to_pixels(scene, outline)
        if scene.style == "sketch":
            pencil.polygon(points, fill=(250, 250, 250), outline=(30, 30, 30))
        else:
            pencil.polygon(points, fill=_colour(subject_hue(scene), scene.saturation * 1.1 + 0.05, value * dim))


def _draw_light(scene: Scene, pencil: ImageDraw.ImageDraw | _LayerDraw, rng: np.random.Generator) -> None:
    """Sun or moon in the sky, on the side opposite to the subject."""
    width, height = scene.shape
    cx = (0.8 if scene.x < 0.5 else 0.2) * width + rng.uniform(-0.08, 0.08) * width
    cy = scene.horizon * height * rng.uniform(0.2, 0.6)
    radius = rng.uniform(0.03, 0.06) * width
    fill = (245, 245, 235) if scene.style in ("night", "sketch") else _colour(0.13, 0.25 * scene.saturation, 1.0)
    pencil.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=fill)


def _draw_stray(scene: Scene, pencil: ImageDraw.ImageDraw | _LayerDraw, rng: np.random.Generator) -> None:
    """One stray thing: a small bar, disc or corner of any colour, anywhere."""
    width, height = scene.shape
    cx, cy = rng.uniform(0.04, 0.96) * width, rng.uniform(0.1, 0.96) * height
    reach = rng.uniform(0.02, 0.05) * width
    fill = _colour(rng.random(), 0.7, rng.uniform(0.15, 1.0))
    kind = rng.integers(3)
    if kind == 0:
        pencil.ellipse((cx - reach, cy - reach, cx + reach, cy + reach), fill=fill)
    elif kind == 1:
        pencil.rectangle((cx - reach / 3, cy - 2 * reach, cx + reach / 3, cy + 2 * reach), fill=fill)
    else:
        pencil.polygon([(cx - reach, cy + reach), (cx + reach, cy + reach), (cx, cy - reach)], fill=fill)
