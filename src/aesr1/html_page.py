"""What all HTML pages share: the styles, pictures inlined as JPEG, safe writing."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from PIL import Image, ImageCms

from aesr1.images.load import open_image

JPEG_QUALITY = 82


class InlineThumbnail(NamedTuple):
    """A small picture as a data URL, and its size in pixels."""

    source: str
    width: int
    height: int


def inline_thumbnail(path: str | Path, side: int) -> InlineThumbnail:
    """A picture as a new JPEG whose longest side is at most `side` pixels, without the file's metadata.

    AesError as `open_image`.
    """
    picture = open_image(path, max_pixels=side**2)  # the longest side is still at least `side`
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    picture = _to_srgb(picture)
    picture.info.clear()  # Pillow would write a JPEG's comment
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=JPEG_QUALITY, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")
    return InlineThumbnail(source, picture.width, picture.height)


def _to_srgb(picture: Image.Image) -> Image.Image:
    """Colours in sRGB: without its profile an Adobe RGB picture would look pale."""
    profile = picture.info.get("icc_profile")
    if not profile:
        return picture
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        turned = ImageCms.profileToProfile(picture, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):  # broken, or the profile of a CMYK file that is RGB now
        return picture
    return turned or picture


def page_template(file: Path) -> Template:
    """A page's template, which may include the shared styles: all values are escaped, and a missing one is an error."""
    environment = Environment(
        loader=FileSystemLoader([file.parent, Path(__file__).parent / "templates"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["source_hash"] = _source_hash
    return environment.get_template(file.name)


def _source_hash(text: str) -> str:
    """A Content-Security-Policy source that allows exactly this text as an inline script or style."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") + "'"
