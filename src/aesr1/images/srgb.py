"""Turns an open picture of any mode into 8-bit sRGB on white, with little memory. Functions without files.

Rule for grey pictures of more than 8 bits: integers are scaled by the smallest of 8, 16 and 31 bits that holds the
largest value; floats by 1 where none is above 1, else by 255 or 65535. Negative values, NaN and larger floats are
refused.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from aesr1.errors import AesError

LARGE_PIXELS = 2**24
"""Larger pictures are reduced strip by strip before anything else is done with them."""
STRIP_PIXELS = 2**22
INTEGER_RANGES, FLOAT_RANGES = (2**8 - 1, 2**16 - 1, 2**31 - 1), (1, 2**8 - 1, 2**16 - 1)
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""
PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""The mode that a profile describes, by the profile's colour space."""


def to_srgb(source: Image.Image, *, max_pixels: int, name: str) -> Image.Image:
    """A new upright RGB picture in sRGB of at most `max_pixels`, without metadata. Transparent areas become white.

    `source` keeps its size and its metadata. AesError for grey values that cannot be scaled.
    """
    source.load()  # first, because reading a PNG's orientation decodes it, and broken pixels must not pass as metadata
    orientation, profile = _orientation(source), source.info.get("icc_profile")
    picture = _reduced(source, max_pixels=max_pixels, name=name)
    if picture.width * picture.height > max_pixels:
        picture = picture.resize(size_within(picture.size, max_pixels), Image.Resampling.BICUBIC)
    picture = _by_profile(picture, profile)
    if orientation in TURNS:
        picture = picture.transpose(TURNS[orientation])
    clean = Image.new("RGB", picture.size)
    clean.paste(picture)
    return clean


def size_within(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """Width and height of at most `max_pixels`, in the same proportion."""
    factor = min(1.0, (max_pixels / (size[0] * size[1])) ** 0.5)
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))


def _orientation(source: Image.Image) -> int:
    """The EXIF orientation, 1 where it cannot be read."""
    try:
        return int(source.getexif().get(ORIENTATION, 1))
    except Exception:  # broken metadata raises errors of many types, and the pixels are whole
        return 1


def _reduced(source: Image.Image, *, max_pixels: int, name: str) -> Image.Image:
    """The picture as RGB, L or CMYK without transparency; a large one at a whole fraction of its size."""
    scale = _grey_scale(source, name) if source.mode.startswith(("I", "F")) else None
    pixels = source.width * source.height
    if pixels <= LARGE_PIXELS:
        return _flat(source, scale)
    factor = max(1, math.isqrt(pixels // (4 * max_pixels)))
    size = (math.ceil(source.width / factor), math.ceil(source.height / factor))
    result: Image.Image | None = None
    for top, strip in _strips(source, factor):
        small = _flat(strip, scale).reduce(factor)
        result = result or Image.new(small.mode, size)
        result.paste(small, (0, top // factor))
    assert result is not None  # a picture has at least one row
    return result


def _strips(source: Image.Image, multiple: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """Rows from the top, as many together as STRIP_PIXELS holds, and a multiple of `multiple`."""
    height = max(1, STRIP_PIXELS // source.width // multiple) * multiple
    for top in range(0, source.height, height):
        yield top, source.crop((0, top, source.width, min(top + height, source.height)))


def _flat(picture: Image.Image, scale: float | None) -> Image.Image:
    """RGB, L or CMYK. Transparent areas become white."""
    if scale is not None:
        return _scaled(picture, scale)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        layers = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")
    if picture.mode == "LAB":
        return _converted(picture, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if picture.mode in ("RGB", "L", "CMYK"):
        return picture
    return picture.convert("L" if picture.mode == "1" else "RGB")


def _scaled(picture: Image.Image, scale: float) -> Image.Image:
    values: NDArray[np.float64] = np.asarray(picture, dtype=np.float64)
    grey = Image.fromarray(np.rint(values * (255 / scale)).astype(np.uint8))
    hidden = picture.info.get("transparency")
    if isinstance(hidden, int):  # one grey value of a 16-bit PNG is transparent
        grey.paste(255, mask=Image.fromarray(values == hidden))
    return grey


def _grey_scale(source: Image.Image, name: str) -> float:
    """The value that becomes white. AesError."""
    lowest, highest = math.inf, -math.inf
    for _, strip in _strips(source):
        values = np.asarray(strip)
        lowest, highest = min(lowest, float(values.min())), max(highest, float(values.max()))
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            raise AesError(f"{name} has grey values that are no numbers (NaN or Inf)", fix="save it with 8 or 16 bits")
    if source.mode.startswith("I;16"):
        return INTEGER_RANGES[1]
    ranges = FLOAT_RANGES if source.mode == "F" else INTEGER_RANGES
    fitting = [most for most in ranges if highest <= most]
    if lowest < 0 or not fitting:
        raise AesError(
            f"{name} has grey values from {lowest:g} to {highest:g}, and their white is not known",
            fix="save it with 8 or 16 bits",
        )
    return fitting[0]


def _by_profile(picture: Image.Image, profile: object) -> Image.Image:
    """RGB in sRGB. A profile that is broken or of another kind of picture is ignored."""
    if isinstance(profile, bytes) and profile:
        try:
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            wanted = PROFILE_MODES.get(given.profile.xcolor_space.strip())
            if wanted == "RGB" and picture.mode == "L":
                picture = picture.convert("RGB")
            if wanted == picture.mode:
                return _converted(picture, given)
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass
    return picture.convert("RGB")


def _converted(picture: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(
        picture,
        profile,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert converted is not None  # None is the answer to inPlace alone
    return converted
