"""Drawn pictures whose every visible property is known.

A scene has a sky, a ground, one subject, a light and some clutter. Faults are correlated through the photographer's
skill (a tilted picture is more often blurred), as in real albums.
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
"""The layers of a scene, from back to front."""

DOMAIN = "scenes"
"""The data set's name in ratings."""

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """What a picture shows and how it was taken. Lengths are shares of the picture's side, 0–1."""

    style: str
    subject: str
    shape: tuple[int, int]
    x: float
    y: float
    size: float
    horizon: float
    tilt: float  # degrees, positive turns the horizon clockwise
    exposure: float  # stops, 0 is right
    contrast: float  # 1 is full
    hue: float  # of the sky, 0–1
    clash: float  # 0 the subject's colour goes with the sky's, 1 it fights it
    saturation: float
    blur: float  # Gaussian radius in pixels of a 224-pixel side
    noise: float  # standard deviation of the grain, of 1
    clutter: int  # stray things in the picture
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
"""Every numeric property with the bounds it is drawn between."""


def facts(scene: Scene) -> dict[str, float]:
    """The numeric properties of a scene, each mapped from its bounds to 0–1."""
    return {name: min(1.0, max(0.0, (getattr(scene, name) - low) / (high - low))) for name, low, high in FACTS}


def sample_scene(rng: np.random.Generator, *, styles: tuple[str, ...] = STYLES[:3]) -> Scene:
    """Draw one scene's properties. Faults share the photographer's skill; taste (hue, place) does not."""
    sloppiness = float(rng.beta(1.1, 1.1))

    def fault(scale: float) -> float:
        """A signed fault: wide for the sloppy, never quite nothing for the skilled."""
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


class _Stencil:
    """A pencil that draws every shape in one layer's number, whatever its colour."""

    def __init__(self, canvas: Image.Image, layer: str) -> None:
        self._pencil, self._number = ImageDraw.Draw(canvas), LAYERS.index(layer)

    def polygon(self, points: list[tuple[float, float]], **_: Any) -> None:
        self._pencil.polygon(points, fill=self._number)

    def ellipse(self, box: tuple[float, float, float, float], **_: Any) -> None:
        self._pencil.ellipse(box, fill=self._number)

    def rectangle(self, box: tuple[float, float, float, float], **_: Any) -> None:
        self._pencil.rectangle(box, fill=self._number)


def draw_layers(scene: Scene) -> NDArray[np.uint8]:
    """(H, W) for each pixel of `draw_scene`, before lens and light: the number of the layer in `LAYERS` it shows."""
    rng = np.random.default_rng(scene.seed)
    _sky_and_ground(scene, rng)  # the same draws of chance, so that the strays fall where they do
    canvas = Image.fromarray((_below(scene) > 0).astype(np.uint8))
    _draw_light(scene, _Stencil(canvas, "light"), rng)
    _draw_subject(scene, _Stencil(canvas, "subject"))
    for _ in range(scene.clutter):
        _draw_stray(scene, _Stencil(canvas, "stray"), rng)
    return np.asarray(canvas)


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(1.0, max(0.0, saturation)), min(1.0, max(0.0, value)))
    return round(red * 255), round(green * 255), round(blue * 255)


def subject_hue(scene: Scene) -> float:
    """The colour circle's quarter is the worst neighbour; near (0) and opposite (½) hues agree."""
    return scene.hue + (0.5 if scene.seed % 2 else 0.0) + 0.25 * scene.clash * (1 if scene.seed % 4 < 2 else -1)


def _below(scene: Scene) -> NDArray[np.float64]:
    """(H, W) distance of each point below the horizon, in heights; negative in the sky."""
    width, height = scene.shape
    across, down = np.meshgrid(np.linspace(-0.5, 0.5, width), np.linspace(0, 1, height))
    return np.asarray(down - scene.horizon - across * math.tan(math.radians(scene.tilt)) * width / height)


def _sky_and_ground(scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(H, W, 3) background: a sky that grows lighter downwards, a striped ground, the horizon turned by the tilt."""
    width, height = scene.shape
    across, below = np.linspace(-0.5, 0.5, width), _below(scene)[..., None]
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
    grain = 1 + 0.05 * rng.standard_normal((height, width, 1))  # a little texture, so that blur shows everywhere
    return np.asarray(np.clip(np.where(below > 0, ground, sky) * grain, 0, 255), dtype=np.uint8)


def _turn(scene: Scene, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Subject coordinates (units of its size, foot at the origin, y down) to pixels, turned by the tilt."""
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
"""Each subject's parts: an outline and how light its colour is."""


def _draw_subject(scene: Scene, pencil: ImageDraw.ImageDraw | _Stencil) -> None:
    dim = 0.6 if scene.style == "night" else 1.0
    for outline, value in _PARTS[scene.subject]:
        points = _turn(scene, outline)
        if scene.style == "sketch":
            pencil.polygon(points, fill=(250, 250, 250), outline=(30, 30, 30))
        else:
            pencil.polygon(points, fill=_colour(subject_hue(scene), scene.saturation * 1.1 + 0.05, value * dim))


def _draw_light(scene: Scene, pencil: ImageDraw.ImageDraw | _Stencil, rng: np.random.Generator) -> None:
    """Sun or moon in the sky, on the side away from the subject."""
    width, height = scene.shape
    cx = (0.8 if scene.x < 0.5 else 0.2) * width + rng.uniform(-0.08, 0.08) * width
    cy = scene.horizon * height * rng.uniform(0.2, 0.6)
    radius = rng.uniform(0.03, 0.06) * width
    fill = (245, 245, 235) if scene.style in ("night", "sketch") else _colour(0.13, 0.25 * scene.saturation, 1.0)
    pencil.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=fill)


def _draw_stray(scene: Scene, pencil: ImageDraw.ImageDraw | _Stencil, rng: np.random.Generator) -> None:
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
