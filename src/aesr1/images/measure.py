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
"""Weights of lightness for gamma-coded red, green and blue (BT.601)."""
HUE_PLANE = np.array([[1, -0.5, -0.5], [0, 3**0.5 / 2, -(3**0.5) / 2]], dtype=np.float32)
"""Colour as a point on the plane of the hue hexagon: the angle is the hue (0 red), the length the chroma, 0–1."""
HUES = 24
WARM_HUE = 0.03  # orange-red, as a share of the hue circle; the opposite is a cyan blue
FINE, COARSE = 1.0, 8**0.5  # standard deviations in pixels of the two blurs that edges are compared under
BLOCK = 24  # pixels; a side of the blocks that grain is estimated in
BLOCK_BIAS = 1.08
"""Corrects a bias: the least of three variances and a low quantile of blocks are both below the mean by chance."""
MAX_TILT = 18  # degrees; a steeper line is not read as a horizon

Plane = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Measurements:
    """Measured properties of one picture, every one a finite float."""

    exposure: float  # −1 black … 0 mid-grey … 1 white: mean of lightness and of the strongest channel
    shadows_clipped: float  # share of the area that is black, 0–1
    highlights_clipped: float  # share of the area with every channel at its maximum, 0–1
    contrast: float  # 5th to 95th percentile of √lightness, 0–1; the root makes it nearly free of exposure
    saturation: float  # root mean square chroma over the white point, 0–1
    colourfulness: float  # Hasler and Süsstrunk 2003, M over their "extremely colourful" 109; 0 to about 1.7
    warmth: float  # −1 all blue-cyan … 0 neither … 1 all orange-red, weighted by chroma
    clash: float  # 0 hues agree (near or opposite) … 1 a quarter circle apart: the salient parts against the whole
    sharpness: float  # 1/(1 + s²), s the blur of the strongest edges in pixels; a step edge has 0.64; 0 no edges
    grain: float  # standard deviation of the noise of smooth areas, full range = 1
    tilt: float  # degrees of the strongest near-horizontal line, positive clockwise; 0 where there is none
    tilt_confidence: float  # 0 no salient line … 1 one direction has all the structure
    subject_x: float  # 0 left … 1 right: centre of the salience
    subject_y: float  # 0 top … 1 bottom
    clutter: float  # 0 empty … 1: n/(n + 8) for n small salient things
    symmetry: float  # 0 left and right are unrelated … 1 mirror images


MEASURE_NAMES = tuple(field.name for field in fields(Measurements))
"""The order of `as_vector`."""


class _Layers(NamedTuple):
    """Colours of the view and the salience of each pixel."""

    colour: NDArray[np.complex64]  # (h, w) on `HUE_PLANE`
    weight: Plane  # (h, w) salience; sums to 1, or to 0 where nothing is salient


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
    """(H, W) from (H, W, 3); many times faster than a reduction over the short axis."""
    return np.asarray(true[..., 0] & true[..., 1] & true[..., 2])


def _blurred(view: Plane, deviation: float) -> Plane:
    """Gaussian blur over the first two axes; `deviation` in pixels."""
    for axis in (0, 1):
        view = ndimage.gaussian_filter1d(view, deviation, axis=axis, truncate=3, mode="nearest")
    return np.asarray(view, dtype=np.float32)


def _saturation(smooth: Plane) -> float:
    """Chroma relative to the picture's own white, so that colours of a dark picture do not count as pale."""
    channels = [*smooth.transpose(2, 0, 1)]
    strongest = np.maximum.reduce(channels)
    white = float(np.percentile(strongest, 98))
    return min(1.0, float(np.sqrt(np.square(strongest - np.minimum.reduce(channels)).mean())) / (white + 0.05) * 1.05)


def _colourfulness(view: Plane) -> float:
    """Hasler and Süsstrunk, Measuring colourfulness in natural images (2003), their M over 109."""
    red, green, blue = (view[..., channel] * 255 for channel in range(3))
    opponents = red - green, (red + green) / 2 - blue
    deviation = float(np.hypot(*(plane.std() for plane in opponents)))
    return (deviation + 0.3 * float(np.hypot(*(plane.mean() for plane in opponents)))) / 109


def _layers(view: Plane) -> _Layers:
    """Each pixel against the median of its row: a landscape's layers (sky, sea, ground) are background, not subject.

    A soft preference for the middle reduces the weight of things that the border cuts off.
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
    hue_view = _blurred(view, 1.5) @ HUE_PLANE.T
    colour = np.asarray(hue_view[..., 0] + 1j * hue_view[..., 1], dtype=np.complex64)
    return _Layers(colour, np.asarray(salience / max(float(salience.sum()), 1e-12), dtype=np.float32))


def _centre(weight: Plane) -> tuple[float, float]:
    """(x, y), 0–1; the middle where nothing is salient."""
    if not weight.any():
        return 0.5, 0.5
    height, width = weight.shape
    across = float(weight.sum(axis=0) @ (np.arange(width) + 0.5)) / width
    return across, float(weight.sum(axis=1) @ (np.arange(height) + 0.5)) / height


def _warmth(colour: NDArray[np.complex64]) -> float:
    """Mean component towards orange-red per chroma; the 0.02 keeps nearly grey pictures neutral."""
    warm_part = np.real(colour * np.exp(-2j * np.pi * WARM_HUE))
    return float(warm_part.mean() / (np.abs(colour).mean() + 0.02))


def _clash(layers: _Layers) -> float:
    """Mean of |sin| of the angle between the hues that stand out and all hues, both weighted by chroma.

    |sin| is 0 for near and for opposite hues and 1 at a quarter circle, after the harmonies of colour wheels.
    """
    chroma = np.abs(layers.colour).ravel()
    bins = (np.angle(layers.colour).ravel() / (2 * np.pi) * HUES).round().astype(np.int64) % HUES
    chroma = np.where(chroma > 0.03, chroma, 0)  # the hue of grey is random
    all_hues = np.bincount(bins, chroma, HUES)
    salient = np.bincount(bins, chroma * layers.weight.ravel(), HUES)
    contrast_of_hues = np.abs(np.sin(2 * np.pi * np.subtract.outer(np.arange(HUES), np.arange(HUES)) / HUES))
    return float(salient @ contrast_of_hues @ all_hues / (salient.sum() * all_hues.sum() + 1e-9))


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
    grain without texture. Grey and chroma-compressed pictures have no such difference: there the lightness is used.
    """
    residual = np.diff(np.diff(pixels.astype(np.float32) / 255, 2, axis=0), 2, axis=1) / 6
    clipped = ((pixels < 3) | (pixels > 252))[1:-1, 1:-1]
    blocks = _blocks(clipped)
    clipped_share = np.count_nonzero(blocks, axis=2) / blocks.shape[2]
    limit = max(0.02, float(np.quantile(clipped_share, 0.05)))  # of a clipped picture, the least clipped blocks
    usable = clipped_share <= limit
    channels = usable.sum(axis=1)
    kept = channels >= min(2, channels.max())
    usable, values = usable[kept], _blocks(residual)[kept]
    covariance = values @ values.transpose(0, 2, 1) / values.shape[2]
    weights = LUMA * usable / (LUMA * usable).sum(axis=1, keepdims=True)
    light = np.einsum("bi,bij,bj->b", weights, covariance, weights)
    differences = np.einsum("bij,ij->b", covariance, [[1, -1, 0], [-1, 2, -1], [0, -1, 1]]) / 2  # of R − G and G − B
    pairs = usable[:, :, None] & usable[:, None, :]
    independent = np.linalg.eigvalsh(np.where(pairs, covariance, np.eye(3)))[:, 0]
    variances = [max(0.0, float(np.quantile(variance, 0.25))) for variance in (independent, light, differences)]
    colour_weight = min(1.0, (variances[2] / (variances[1] + 1e-9)) ** 0.5 / 0.3)
    return BLOCK_BIAS * float(np.sqrt(colour_weight * variances[0] + (1 - colour_weight) * variances[1]))


def _blocks(planes: NDArray[T]) -> NDArray[T]:
    """(H, W, 3) to (blocks, 3, pixels of a block); the rest at the right and the bottom is dropped."""
    side = min(BLOCK, *planes.shape[:2])
    rows, columns = planes.shape[0] // side, planes.shape[1] // side
    tiled = planes[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
    return tiled.transpose(0, 2, 4, 1, 3).reshape(rows * columns, 3, side * side)


def _tilt(lightness: Plane) -> tuple[float, float]:
    """Degrees and confidence: the angle at which sums of the downward slope are largest (a narrow Radon transform).

    The third power prefers one long line over many short ones.
    """
    slope = ndimage.gaussian_filter1d(_blurred(lightness, 1.5), 1.5, axis=0, order=1, mode="nearest")
    slope = np.clip(slope, -0.08, 0.08)
    height, width = slope.shape
    reach = int(np.ceil(width / 2 * np.tan(np.radians(MAX_TILT)))) + 2
    padded = np.pad(slope, ((reach, reach), (0, 0)))
    across = np.arange(width) - (width - 1) / 2
    angles = np.arange(-MAX_TILT, MAX_TILT + 1)
    strengths = np.empty(len(angles))
    for index, angle in enumerate(angles):
        shift = np.round(across * np.tan(np.radians(angle))).astype(np.int64)
        lines = padded[np.arange(height)[:, None] + reach + shift, np.arange(width)].mean(axis=1)
        strengths[index] = np.power(np.abs(lines), 3).sum()
    best = int(strengths.argmax())
    if strengths[best] < 1e-9 or best in (0, len(angles) - 1):
        return 0.0, 0.0  # at the bounds: a steeper diagonal
    confidence = 1 - float(np.median(strengths) / strengths[best])
    before, peak, after = strengths[best - 1 : best + 2]
    return float(angles[best] + 0.5 * (before - after) / (before - 2 * peak + after)), confidence


def _clutter(view: Plane) -> float:
    """The number of salient things narrower than a third of the picture in both directions (top hats)."""
    height, width = view.shape[:2]
    reach = max(3, round(0.34 * float(np.sqrt(height * width))) | 1)
    smooth = _blurred(view, 2.0)
    red, green, blue = (smooth[..., channel] for channel in range(3))
    height_squared = np.zeros((height, width), dtype=np.float32)
    for plane in (smooth @ LUMA, red - green, (red + green) / 2 - blue):
        for signed in (plane, -plane):
            top_hats = [
                signed - ndimage.maximum_filter1d(ndimage.minimum_filter1d(signed, reach, axis=axis), reach, axis=axis)
                for axis in (0, 1)
            ]
            height_squared += np.square(np.minimum(*top_hats))
    height_above = np.sqrt(height_squared)
    labels, count = ndimage.label(height_above > max(0.04, 0.3 * float(np.percentile(height_above, 99.5))))
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    number = int((areas >= max(4, 0.0015 * height_squared.size)).sum())
    return number / (number + 8)


def _symmetry(lightness: Plane) -> float:
    """1 − the mean difference from the mirror image over that between two unrelated halves of this mean deviation."""
    deviation = float(np.abs(lightness - lightness.mean()).mean())
    return float(np.clip(1 - np.abs(lightness - lightness[:, ::-1]).mean() / (2 * deviation + 1e-3), 0, 1))
