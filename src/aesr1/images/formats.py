"""Which files are pictures: Pillow's formats that are read, HEIC and camera RAW by their packages."""

from __future__ import annotations

import io
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from aesr1.errors import AesError, install
from aesr1.images.srgb import ORIENTATION

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM")
"""Formats that are opened; JPEG includes MPO. Others of Pillow start programs (EPS) or are hardly ever photographs."""
HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
RAW_SUFFIXES = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"}
)
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"})
PHOTOS = install("photos")
HEIF_FIX = f"pillow-heif reads it ({PHOTOS})"
TURN_OF_FLIP = {3: Image.Transpose.ROTATE_180, 5: Image.Transpose.ROTATE_90, 6: Image.Transpose.ROTATE_270}
"""What makes a RAW picture upright, by LibRaw's flip."""


@lru_cache(maxsize=1)
def formats() -> tuple[str, ...]:
    """FORMATS, and HEIC if pillow-heif is installed."""
    if find_spec("pillow_heif") is None:
        return FORMATS
    import pillow_heif

    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


@lru_cache(maxsize=1)
def suffixes() -> frozenset[str]:
    """Suffixes of the files that can be opened here, in small letters."""
    Image.init()
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in (*FORMATS, "MPO")}
    heif = HEIF_SUFFIXES if "HEIF" in formats() else frozenset()
    raw = RAW_SUFFIXES if find_spec("rawpy") else frozenset()
    return frozenset(known) | heif | raw


MIN_PREVIEW = 640
"""Longer side in pixels from which the preview in a RAW file is used; some cameras embed a thumbnail alone."""


def open_raw(source: Path | BinaryIO, *, name: str = "") -> Image.Image:
    """The picture that the camera embedded in a RAW file, upright; else the developed one. AesError.

    `name` stands for the file in errors.
    """
    name = name or str(source)
    if find_spec("rawpy") is None:
        raise AesError(f"{name} is camera RAW", fix=f"rawpy reads it ({PHOTOS})")
    import rawpy

    try:
        with rawpy.imread(str(source) if isinstance(source, Path) else source) as raw:
            picture = _preview(raw)
            developed = max(raw.sizes.width, raw.sizes.height) // 2  # its longer side
            if picture is None or max(picture.size) < min(MIN_PREVIEW, developed):
                return Image.fromarray(raw.postprocess(use_camera_wb=True, half_size=True))
            if picture.getexif().get(ORIENTATION, 1) != 1:
                return picture
            turn = TURN_OF_FLIP.get(raw.sizes.flip)
            return picture if turn is None else picture.transpose(turn)
    except rawpy.LibRawError as error:
        raise AesError(f"{name} cannot be read as camera RAW: {error}", fix="check the file") from error


def _preview(raw: Any) -> Image.Image | None:
    """The picture embedded in an open RAW file, with its own EXIF; None where there is none."""
    import rawpy

    try:
        preview = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    if preview.format == rawpy.ThumbFormat.BITMAP:
        return Image.fromarray(preview.data)
    return Image.open(io.BytesIO(preview.data), formats=["JPEG"])
