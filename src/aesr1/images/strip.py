"""The bytes of a picture's file without metadata, for files that leave this machine."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image

from aesr1.errors import AesError
from aesr1.images.formats import formats
from aesr1.images.load import image_size, open_image
from aesr1.images.srgb import ORIENTATION

HARMLESS = frozenset(
    {"adobe", "adobe_transform", "aspect", "background", "chromaticity", "compression", "dpi", "duration", "gamma"}
    | {"icc_profile", "interlace", "jfif", "jfif_density", "jfif_unit", "jfif_version", "loop", "progression"}
    | {"progressive", "srgb", "timestamp", "transparency"}
)
"""What Pillow reads beside the pixels and tells nothing about a person or a place."""
HARMLESS_SEGMENTS = frozenset({"APP0", "APP2", "APP14"})
"""Segments of a JPEG: its density, its colour profile, its colour transform."""
PLAIN = ("JPEG", "PNG", "BMP")
"""Formats whose metadata Pillow reports whole."""


def bytes_without_metadata(path: str | Path) -> bytes:
    """The file as it is where it holds pixels alone, else the picture encoded again. AesError as `open_image`.

    A JPEG is encoded with its own tables, so that pixels change by rounding alone; an upright copy in sRGB is made of
    a turned picture (JPEG), and of formats that can hide metadata (PNG).
    """
    image_size(path)  # AesError for a file that is no picture; reads the head alone
    content = Path(path).read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=formats()) as picture:
                orientation = picture.getexif().get(ORIENTATION, 1)
                if picture.format in PLAIN and _is_plain(picture, content):
                    return content
                output = io.BytesIO()
                if picture.format == "JPEG" and orientation == 1:
                    profile = picture.info.get("icc_profile")
                    picture.load()
                    picture.info.pop("comment", None)
                    picture.save(output, "JPEG", quality="keep", icc_profile=profile, exif=b"")
                    return output.getvalue()
                is_jpeg = picture.format in ("JPEG", "MPO")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise AesError(f"{path} cannot be written again: {error}", fix="leave this picture out") from error
    output = io.BytesIO()
    open_image(path).save(output, **({"format": "JPEG", "quality": 95} if is_jpeg else {"format": "PNG"}))
    return output.getvalue()


def _is_plain(picture: Image.Image, content: bytes) -> bool:
    if picture.getexif() or set(map(str, picture.info)) - HARMLESS:
        return False
    if picture.format == "JPEG":
        segments = {name for name, _ in getattr(picture, "applist", [])}
        return segments <= HARMLESS_SEGMENTS and content.rstrip(b"\0").endswith(b"\xff\xd9")
    if picture.format == "PNG":
        return content.endswith(b"IEND\xaeB`\x82") and b"tIME" not in content
    return True
