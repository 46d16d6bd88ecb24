"""Opens a picture safely (type, size, orientation, RGB), and finds pictures in folders."""

from __future__ import annotations

import glob as globbing
import warnings
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageOps

from aesr1.errors import AesError

IMAGE_FIX = "check the path, or leave this picture out"
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MAX_SOURCE_PIXELS = 170_000_000
"""Larger pictures are refused before they are decoded (Pillow's own limit is 179 megapixels)."""
MIN_SIDE, MAX_RATIO = 8, 100
"""Models cut a picture into patches, so very thin pictures cannot be judged."""


def open_image(path: str | Path, *, max_pixels: int | None = None) -> Image.Image:
    """An upright RGB picture, shrunk to `max_pixels` if given. AesError names what is wrong with the file."""
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's bomb warning (ours is below) and broken EXIF
            with Image.open(path) as source:
                return to_rgb(source, max_pixels=max_pixels, name=str(path))
    except FileNotFoundError as error:
        raise AesError(f"{path} does not exist", fix=IMAGE_FIX) from error
    except Image.DecompressionBombError as error:
        raise AesError(f"{path} is too large: {error}", fix="make a smaller copy of it") from error
    except AesError:
        raise
    except Exception as error:  # decoders of broken files raise many kinds of errors
        raise AesError(f"{path} cannot be read as a picture: {error}", fix=IMAGE_FIX) from error


def to_rgb(source: Image.Image, *, max_pixels: int | None = None, name: str = "the picture") -> Image.Image:
    """As `open_image` for a picture that is already open; both give the same pixels."""
    width, height = source.size
    if width * height > MAX_SOURCE_PIXELS:
        raise AesError(f"{name} has {width} × {height} pixels", fix="make a smaller copy of it")
    if too_small(source.size):
        raise AesError(f"{name} has {width} × {height} pixels, too small or too thin to judge", fix=IMAGE_FIX)
    if max_pixels is not None:
        source.draft("RGB", _size_within(source.size, max_pixels))  # JPEG: decode at a fraction of the size
    picture = _on_white(ImageOps.exif_transpose(source))
    if max_pixels is not None and picture.width * picture.height > max_pixels:
        picture = picture.resize(_size_within(picture.size, max_pixels), Image.Resampling.BICUBIC)
    return picture


def too_small(size: tuple[int, int]) -> bool:
    """Too small or too thin to judge, by width and height."""
    return min(size) < MIN_SIDE or max(size) > MAX_RATIO * min(size)


def _size_within(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    factor = min(1.0, (max_pixels / (size[0] * size[1])) ** 0.5)
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))


def _on_white(picture: Image.Image) -> Image.Image:
    """RGB. Transparent areas become white."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layers = picture.convert("RGBA")
        white = Image.new("RGBA", layers.size, "white")
        return Image.alpha_composite(white, layers).convert("RGB")
    if picture.mode.startswith("I;16") or picture.mode == "I":
        picture = picture.point(lambda value: value / 256).convert("L")
    return picture.convert("RGB")


def find_images(inputs: Iterable[str | Path]) -> list[Path]:
    """Pictures of files, folders (searched recursively by suffix) and globs: absolute paths, sorted, each once.

    A file given by name is kept whatever its suffix, so that its error is reported. AesError where an input
    matches nothing.
    """
    paths: dict[Path, None] = {}
    for entry in inputs:
        path = Path(entry)
        if path.is_dir():
            matches = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        elif any(mark in str(entry) for mark in "*?[") and not path.exists():
            names = globbing.glob(str(entry), recursive=True)  # noqa: PTH207  # the pattern may be absolute
            matches = sorted(Path(match) for match in names if Path(match).is_file())
        else:
            matches = [path]
        if not matches:
            raise AesError(f"{entry} holds no pictures", fix=f"looked for {', '.join(sorted(SUFFIXES))}")
        paths.update(dict.fromkeys(match.absolute() for match in matches))
    return list(paths)
