"""Measures light, colour, sharpness, grain and composition of a picture. Pure functions.

Focus and grain are properties of single pixels, so they are measured at up to `DETAIL_PIXELS`; everything else is
measured on a copy of `VIEW_PIXELS`.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from aesr1.errors import AesError
from aesr1.images.load import MIN_SIDE

DETAIL_PIXELS = 2**17
VIEW_PIXELS = 2**14
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Lightness of gamma-coded red, green and blue (BT.601)."""
HUE_PLANE = np.array([[1, -0.5, -0.5], [0, 3**0.5 / 2, -(3**0.5) / 2]], dtype=np.float32)
"""Colour as a point on the plane of the hue hexagon: the angle is the hue (0 red), the length the chroma, 0–1."""
HUES = 24
WARM_HUE = 0.03  # of a turn: orange-red; its opposite is a cyan blue
FINE, COARSE = 1.0, 8**0.5  # standard deviations in pixels of the two blurs that edges are compared under
BLOCK = 24  # pixels; a side of the blocks that grain is estimated in
BLOCK_BIAS = 1.08
"""The least of a block's three variances, and a low quantile of blocks, both fall short of the mean by chance."""
MAX_TILT = 18  # degrees; a steeper line is not read as a horizon

Plane = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Measurements:
    """Measured properties of one picture, every one a finite float."""

    exposure: float  # −1 black … 0 mid-grey … 1 white: mean of lightness and of the strongest channel
    shadows_clipped: float  # share of the area with no light left, 0–1
    highlights_clipped: float  # share of the area with every channel at its end, 0–1
    contrast: float  # 5th to 95th percentile of √lightness, 0–1; the root makes it nearly free of exposure
    saturation: float  # root mean square chroma over the white point, 0–1
    colourfulness: float  # Hasler and Süsstrunk 2003, M over their "extremely colourful" 109; 0 to about 1.7
    warmth: float  # −1 all blue-cyan … 0 neither … 1 all orange-red, weighted by chroma
    clash: float  # 0 hues agree (near or opposite) … 1 a quarter circle apart: what stands out against the whole
    sharpness: float  # 1/(1 + s²), s the blur of the strongest edges in pixels; a bare step has 0.64; 0 no edges
    grain: float  # standard deviation of what varies from pixel to pixel in smooth areas, full range = 1
    tilt: float  # degrees by which the strongest near-level line leans, positive clockwise; 0 where there is none
    tilt_confidence: float  # 0 no line stands out … 1 one direction holds all the level structure
    subject_x: float  # 0 left … 1 right: centre of what stands out from its row of the picture
    subject_y: float  # 0 top … 1 bottom
    clutter: float  # 0 empty … 1: n/(n + 8) for n small things that stand out
    symmetry: float  # 0 left and right have nothing in common … 1 mirror images


MEASURE_NAMES = tuple(field.name for field in fields(Measurements))
"""The order of `as_vector`."""


class _Layers(NamedTuple):
    """Colours of the view and how far each place stands out."""

    colour: NDArray[np.complex64]  # (h, w) on `HUE_PLANE`
    weight: Plane  # (h, w) sums to 1, or to 0 where nothing stands out


def as_vector(measurements: Measurements) -> NDArray[np.float64]:
    """(16,) values in the order of `MEASURE_NAMES`."""
    return np.array(astuple(measurements), dtype=np.float64)


def measure(image: Image.Image | NDArray[np.uint8]) -> Measurements:
    """Measure a picture, or its (H, W, 3) pixels. AesError where a side is shorter than 8 pixels."""
    picture = image.convert("RGB") if isinstance(image, Image.Image) else Image.fromarray(image, "RGB")
    if min(picture.size) < MIN_SIDE:
        raise AesError(f"the picture has only {picture.width} × {picture.height} pixels", fix="leave it out")
    detail = _shrunk(picture, DETAIL_PIXELS)
    pixels = np.asarray(detail)
    view = np.asarray(np.asarray(_shrunk(detail, VIEW_PIXELS)) / np.float32(255), dtype=np.float32)
    lightness = view @ LUMA
    smooth = _blurred(view, 1.5)
    layers = _layers(view)
    tilt, tilt_confidence = _tilt(lightness)
    subject_x, subject_y = _centre(layers.weight)
    return Measurements(
        exposure=float(lightness.mean() + np.maximum.reduce([*view.transpose(2, 0, 1)]).mean() - 1),
        shadows_clipped=float(_all_channels(pixels <= 3).mean()),
        highlights_clipped=float(_all_channels(pixels >= 252).mean()),
        contrast=float(np.subtract(*np.percentile(np.sqrt(smooth @ LUMA), (95, 5)))),
        saturation=_saturation(smooth),
        colourfulness=_colourfulness(view),
        warmth=_warmth(layers.colour),
        clash=_clash(layers),
        sharpness=_sharpness(np.asarray(pixels @ (LUMA / np.float32(255)), dtype=np.float32)),
        grain=_grain(pixels),
        tilt=tilt,
        tilt_confidence=tilt_confidence,
        subject_x=subject_x,
        subject_y=subject_y,
        clutter=_clutter(view),
        symmetry=_symmetry(smooth @ LUMA),
    )


def _shrunk(picture: Image.Image, max_pixels: int) -> Image.Image:
    factor = (max_pixels / (picture.width * picture.height)) ** 0.5
    if factor >= 1:
        return picture
    size = (max(MIN_SIDE, round(picture.width * factor)), max(MIN_SIDE, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.BOX)


def _all_channels(true: NDArray[np.bool]) -> NDArray[np.bool]:
    """(H, W) from (H, W, 3); many times faster than a reduction over so short an axis."""
    return np.asarray(true[..., 0] & true[..., 1] & true[..., 2])


def _blurred(view: Plane, deviation: float) -> Plane:
    """Gaussian blur over the first two axes; `deviation` in pixels."""
    along = ndimage.gaussian_filter1d(view, deviation, axis=0, truncate=3, mode="nearest")
    return np.asarray(ndimage.gaussian_filter1d(along, deviation, axis=1, truncate=3, mode="nearest"), dtype=np.float32)


def _saturation(smooth: Plane) -> float:
    """Chroma against the picture's own white, so that a dark picture's colours are not read as pale."""
    channels = [*smooth.transpose(2, 0, 1)]
    strongest = np.maximum.reduce(channels)
    white = float(np.percentile(strongest, 98))
    return min(1.0, float(np.sqrt(np.square(strongest - np.minimum.reduce(channels)).mean())) / (white + 0.05) * 1.05)


def _colourfulness(view: Plane) -> float:
    """Hasler and Süsstrunk, Measuring colourfulness in natural images (2003), their M over 109."""
    red, green, blue = (view[..., channel] * 255 for channel in range(3))
    opponents = red - green, (red + green) / 2 - blue
    spread = float(np.hypot(*(plane.std() for plane in opponents)))
    return (spread + 0.3 * float(np.hypot(*(plane.mean() for plane in opponents)))) / 109


def _layers(view: Plane) -> _Layers:
    """Each place against the median of its row: a landscape's layers (sky, sea, ground) are background, not subject.

    A soft preference for the middle keeps what the border cuts off from ruling the picture.
    """
    height, width = view.shape[:2]
    smooth = _blurred(view, 0.05 * float(np.sqrt(height * width)))
    plane = smooth @ HUE_PLANE.T
    features = np.concatenate([(smooth @ LUMA)[..., None], plane], axis=2)
    salience = np.square(features - np.median(features, axis=1, keepdims=True)).sum(axis=2)
    down = (np.arange(height) + 0.5) / height - 0.5
    across = (np.arange(width) + 0.5) / width - 0.5
    salience = salience * np.exp(-(np.square(down)[:, None] + np.square(across)) / (2 * 0.35**2))
    salience = np.where(salience > 1e-7, np.maximum(salience - 0.1 * salience.max(), 0), 0)
    finer = _blurred(view, 1.5) @ HUE_PLANE.T
    colour = np.asarray(finer[..., 0] + 1j * finer[..., 1], dtype=np.complex64)
    return _Layers(colour, np.asarray(salience / max(float(salience.sum()), 1e-12), dtype=np.float32))


def _centre(weight: Plane) -> tuple[float, float]:
    """Across and down, 0–1; the middle where nothing stands out."""
    if not weight.any():
        return 0.5, 0.5
    height, width = weight.shape
    across = float(weight.sum(axis=0) @ (np.arange(width) + 0.5)) / width
    return across, float(weight.sum(axis=1) @ (np.arange(height) + 0.5)) / height


def _warmth(colour: NDArray[np.complex64]) -> float:
    """Mean leaning to orange-red per chroma; the 0.02 keeps nearly grey pictures neutral."""
    leaning = np.real(colour * np.exp(-2j * np.pi * WARM_HUE))
    return float(leaning.mean() / (np.abs(colour).mean() + 0.02))


def _clash(layers: _Layers) -> float:
    """Mean of |sin| of the angle between the hues that stand out and all hues, both weighted by chroma.

    |sin| is 0 for near and for opposite hues and 1 at a quarter circle, after the harmonies of colour wheels.
    """
    chroma = np.abs(layers.colour).ravel()
    bins = (np.angle(layers.colour).ravel() / (2 * np.pi) * HUES).round().astype(np.int64) % HUES
    chroma = np.where(chroma > 0.03, chroma, 0)  # the hue of grey is chance
    everywhere = np.bincount(bins, chroma, HUES)
    standing_out = np.bincount(bins, chroma * layers.weight.ravel(), HUES)
    apart = np.abs(np.sin(2 * np.pi * np.subtract.outer(np.arange(HUES), np.arange(HUES)) / HUES))
    return float(standing_out @ apart @ everywhere / (standing_out.sum() * everywhere.sum() + 1e-9))


def _sharpness(lightness: Plane) -> float:
    """An edge of blur s keeps √((s² + 8)/(s² + 1)) times more slope under a blur of 1 than under one of √8 pixels.

    Zhuo and Sim, Defocus map estimation from a single image (2011), with the finer slope taken along the coarser
    one's direction and summed over the strongest crests, where grain averages out.
    """
    fine = _blurred(lightness, FINE)
    coarse = _blurred(fine, (COARSE**2 - FINE**2) ** 0.5)
    down, across = coarse[2:, 1:-1] - coarse[:-2, 1:-1], coarse[1:-1, 2:] - coarse[1:-1, :-2]
    energy = down * down + across * across
    floor = max(float(np.partition(energy, -energy.size // 100, axis=None)[-energy.size // 100]), 4e-7)
    crests = np.nonzero((energy >= floor) & (energy >= 0.97 * ndimage.maximum_filter(energy, 3)))
    if not len(crests[0]):
        return 0.0
    row, column = crests[0] + 1, crests[1] + 1
    along_down = (fine[row + 1, column] - fine[row - 1, column]) * down[crests]
    along_across = (fine[row, column + 1] - fine[row, column - 1]) * across[crests]
    ratio = float((along_down + along_across).sum() / energy[crests].sum())
    return float(np.clip((ratio**2 - 1) / (COARSE**2 / FINE**2 - 1), 0, 1))


def _grain(pixels: NDArray[np.uint8]) -> float:
    """Immerkær, Fast noise variance estimation (1996): his mask, per block, over the smoothest blocks.

    Grain differs between channels and texture does not, so the least eigenvalue of the mask's (3, 3) covariance is
    grain without texture. Grey and chroma-compressed pictures have no such difference: there lightness must do.
    """
    residual = np.diff(np.diff(pixels.astype(np.float32) / 255, 2, axis=0), 2, axis=1) / 6
    clipped = ((pixels < 3) | (pixels > 252))[1:-1, 1:-1]
    blocks = _blocks(clipped)
    lost = np.count_nonzero(blocks, axis=2) / blocks.shape[2]
    usable = lost <= max(0.02, float(np.quantile(lost, 0.05)))  # of a burnt-out picture, the least burnt
    channels = usable.sum(axis=1)
    known = channels >= min(2, channels.max())
    usable, values = usable[known], _blocks(residual)[known]
    covariance = values @ values.transpose(0, 2, 1) / values.shape[2]
    weights = LUMA * usable / (LUMA * usable).sum(axis=1, keepdims=True)
    light = np.einsum("bi,bij,bj->b", weights, covariance, weights)
    differences = np.einsum("bij,ij->b", covariance, [[1, -1, 0], [-1, 2, -1], [0, -1, 1]]) / 2  # of R − G and G − B
    pairs = usable[:, :, None] & usable[:, None, :]
    independent = np.linalg.eigvalsh(np.where(pairs, covariance, np.eye(3)))[:, 0]
    low = [max(0.0, float(np.quantile(variance, 0.25))) for variance in (independent, light, differences)]
    coloured = min(1.0, (low[2] / (low[1] + 1e-9)) ** 0.5 / 0.3)
    return BLOCK_BIAS * float(np.sqrt(coloured * low[0] + (1 - coloured) * low[1]))


def _blocks(planes: NDArray[T]) -> NDArray[T]:
    """(H, W, 3) to (blocks, 3, pixels of a block); what is left over at the right and the bottom is dropped."""
    side = min(BLOCK, *planes.shape[:2])
    rows, columns = planes.shape[0] // side, planes.shape[1] // side
    cut = planes[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
    return cut.transpose(0, 2, 4, 1, 3).reshape(rows * columns, 3, side * side)


def _tilt(lightness: Plane) -> tuple[float, float]:
    """Degrees and confidence: the lean along which lines of the downward slope sum highest (a narrow Radon transform).

    The third power prefers one long line over many short ones.
    """
    slope = ndimage.gaussian_filter1d(_blurred(lightness, 1.5), 1.5, axis=0, order=1, mode="nearest")
    slope = np.clip(slope, -0.08, 0.08)
    height, width = slope.shape
    reach = int(np.ceil(width / 2 * np.tan(np.radians(MAX_TILT)))) + 2
    padded = np.pad(slope, ((reach, reach), (0, 0)))
    across = np.arange(width) - (width - 1) / 2
    leans = np.arange(-MAX_TILT, MAX_TILT + 1)
    strengths = np.empty(len(leans))
    for index, lean in enumerate(leans):
        shift = np.round(across * np.tan(np.radians(lean))).astype(np.int64)
        lines = padded[np.arange(height)[:, None] + reach + shift, np.arange(width)].mean(axis=1)
        strengths[index] = np.power(np.abs(lines), 3).sum()
    best = int(strengths.argmax())
    if strengths[best] < 1e-9 or best in (0, len(leans) - 1):
        return 0.0, 0.0  # at the bounds: a diagonal that goes on beyond them
    confidence = 1 - float(np.median(strengths) / strengths[best])
    before, peak, after = strengths[best - 1 : best + 2]
    return float(leans[best] + 0.5 * (before - after) / (before - 2 * peak + after)), confidence


def _clutter(view: Plane) -> float:
    """Things narrower than a third of the picture both across and down (top hats), counted where they stand out."""
    height, width = view.shape[:2]
    reach = max(3, round(0.34 * float(np.sqrt(height * width))) | 1)
    smooth = _blurred(view, 2.0)
    red, green, blue = (smooth[..., channel] for channel in range(3))
    standing = np.zeros((height, width), dtype=np.float32)
    for plane in (smooth @ LUMA, red - green, (red + green) / 2 - blue):
        for signed in (plane, -plane):
            hats = [
                signed - ndimage.maximum_filter1d(ndimage.minimum_filter1d(signed, reach, axis=axis), reach, axis=axis)
                for axis in (0, 1)
            ]
            standing += np.square(np.minimum(*hats))
    height_above = np.sqrt(standing)
    things, count = ndimage.label(height_above > max(0.04, 0.3 * float(np.percentile(height_above, 99.5))))
    areas = np.bincount(things.ravel(), minlength=count + 1)[1:]
    number = int((areas >= max(4, 0.0015 * standing.size)).sum())
    return number / (number + 8)


def _symmetry(lightness: Plane) -> float:
    """1 − the mean difference from the mirror image over that between two unrelated halves of this spread."""
    spread = float(np.abs(lightness - lightness.mean()).mean())
    return float(np.clip(1 - np.abs(lightness - lightness[:, ::-1]).mean() / (2 * spread + 1e-3), 0, 1))
