"""Opens a picture safely: one list of formats, size limits, upright, sRGB, without metadata."""

from __future__ import annotations

import io
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin, UnidentifiedImageError

from aesr1.errors import AesError
from aesr1.images.formats import HEIF_BRANDS, HEIF_FIX, RAW_SUFFIXES, formats, open_raw
from aesr1.images.srgb import size_within, to_srgb

ImageSource = str | Path | bytes | bytearray | BinaryIO | Image.Image | NDArray[np.uint8]
"""A path, the bytes of a file, an open file, a picture, or an array of height × width × 3."""
IMAGE_FIX = "check the path, or leave this picture out"
MAX_SOURCE_PIXELS = 170_000_000
"""Larger pictures are refused before they are decoded. A JPEG counts as the size it is decoded at."""
MAX_KEPT_PIXELS = 2**25
"""Largest picture that is returned where the caller names no limit."""
ALONE_PIXELS = 2**25
"""A larger picture waits until no other of its kind is decoded: it takes 130 MB and more."""
MIN_SIDE, MAX_RATIO = 8, 100
"""Models cut a picture into patches, so very thin pictures cannot be judged."""
JPEG_MARK = b"\xff\xd8\xff"


def open_image(
    source: ImageSource, *, max_pixels: int | None = None, max_source_pixels: int = MAX_SOURCE_PIXELS
) -> Image.Image:
    """A new upright RGB picture in sRGB, shrunk to `max_pixels`, without metadata. The source is not changed.

    AesError names what is wrong. Pictures of more than `max_source_pixels` are refused before they are decoded; a
    JPEG is decoded at down to an eighth of its sides instead.
    """
    name = str(source) if isinstance(source, str | Path) else "the picture"
    limit = max_pixels or MAX_KEPT_PIXELS
    if isinstance(source, np.ndarray):
        source = _from_array(source)
    if isinstance(source, Image.Image):
        return _checked(source, max_pixels=limit, max_source_pixels=max_source_pixels, name=name)
    if isinstance(source, str | Path):
        path = Path(source)
        _require_regular_file(path)
        if path.suffix.lower() in RAW_SUFFIXES:
            return open_image(open_raw(path), max_pixels=limit, max_source_pixels=max_source_pixels)
    file = io.BytesIO(source) if isinstance(source, bytes | bytearray) else source
    if not isinstance(file, str | Path) and not hasattr(file, "read"):
        raise AesError(
            f"{type(source).__name__} is not a picture",
            fix="pass a path, the bytes of a file, an open file, a PIL picture or a uint8 array",
        )
    picture: Image.Image | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's bomb warning (the limit is ours) and broken metadata
            with _identified(file) as picture:
                picture.draft("RGB", size_within(picture.size, min(limit, max_source_pixels)))  # of JPEG
                return _checked(picture, max_pixels=limit, max_source_pixels=max_source_pixels, name=name)
    except AesError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error)) from error
    except UnidentifiedImageError as error:
        raise AesError(f"{name} {_kind_of_file(file)}", fix=IMAGE_FIX) from error
    except Exception as error:  # decoders of broken files raise errors of many types
        problem = str(error)
        if re.search("truncated|broken data stream|incomplete", problem, re.IGNORECASE):
            raise AesError(
                f"{name} is cut off{_where_cut(picture)}: the end of the file is missing", fix="copy it again"
            ) from error
        raise AesError(
            f"{name} cannot be read as a picture: {problem or type(error).__name__}", fix=IMAGE_FIX
        ) from error


def _where_cut(picture: Image.Image | None) -> str:
    """After how much of the picture the decoder found the end: rows that it did not reach are 0."""
    try:
        box = picture.im.getbbox() if picture is not None else None
    except (ValueError, AttributeError):  # nothing was decoded
        box = None
    return f" after about {100 * box[3] / picture.im.size[1]:.0f} %" if box and picture is not None else ""


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height as stored, from the head of the file. AesError where it is no picture."""
    _require_regular_file(Path(path))
    if Path(path).suffix.lower() in RAW_SUFFIXES:
        return open_image(path).size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _identified(path) as picture:
                return picture.size
    except UnidentifiedImageError as error:
        raise AesError(f"{path} {_kind_of_file(path)}", fix=IMAGE_FIX) from error
    except Exception as error:
        raise AesError(f"{path} cannot be read as a picture: {error}", fix=IMAGE_FIX) from error


def _require_regular_file(path: Path) -> None:
    """AesError: reading a pipe or a device would wait for ever."""
    try:
        if path.is_file():
            return
        what = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
    except (OSError, ValueError) as error:  # too long to be a name, or holds a null character
        what = f"cannot be opened: {getattr(error, 'strerror', None) or error}"
    if re.match(r"https?:/", str(path)):
        raise AesError(
            f"{path} is an address, and nothing is downloaded", fix="download the picture, then name the file"
        )
    raise AesError(f"{path} {what}", fix=IMAGE_FIX)


def _identified(file: str | Path | BinaryIO) -> ImageFile.ImageFile:
    """The picture before it is decoded. A JPEG passes Pillow's size limit, because it can be decoded reduced."""
    try:
        return Image.open(file, formats=formats())
    except Image.DecompressionBombError:
        if _head(file)[:3] != JPEG_MARK:
            raise
        return JpegImagePlugin.JpegImageFile(file)


def _checked(source: Image.Image, *, max_pixels: int, max_source_pixels: int, name: str) -> Image.Image:
    _check_size(source.size, name)
    if source.width * source.height > max_source_pixels:
        raise _too_large(name, f"{source.width} × {source.height} pixels")
    with _slot(source.width * source.height):
        return to_srgb(source, max_pixels=max_pixels, name=name)


@contextmanager
def _slot(pixels: int) -> Iterator[None]:
    """One large picture at a time is decoded, by all threads and processes of a user: several would fill the memory."""
    user = os.getuid() if hasattr(os, "getuid") else ""
    lock = FileLock(Path(tempfile.gettempdir()) / f"aesr1-{user}-large-picture.lock")
    with ExitStack() as held:
        if pixels > ALONE_PIXELS:
            with suppress(OSError):  # no temporary folder to write in: the picture is read all the same
                held.enter_context(lock)
        yield


def _check_size(size: tuple[int, int], name: str) -> None:
    if too_small(size):
        raise AesError(f"{name} has {size[0]} × {size[1]} pixels, too small or too thin to judge", fix=IMAGE_FIX)


def too_small(size: tuple[int, int]) -> bool:
    """Too small or too thin to judge, by width and height."""
    return min(size) < MIN_SIDE or max(size) > MAX_RATIO * min(size)


def _too_large(name: str, reason: str) -> AesError:
    return AesError(f"{name} is too large: {reason}", fix="make a smaller copy of it")


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
        raise AesError(
            f"an array of {array.dtype} with the shape {array.shape} is not a picture",
            fix="pass uint8 values of the shape height × width × 3",
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _head(file: str | Path | BinaryIO) -> bytes:
    if isinstance(file, str | Path):
        with Path(file).open("rb") as opened:
            return opened.read(512)
    file.seek(0)
    head = file.read(512)
    file.seek(0)
    return head


def _kind_of_file(file: str | Path | BinaryIO) -> str:
    """What a file that is no picture seems to be."""
    head = _head(file)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "has 0 bytes"
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS:
        return f"is a HEIC picture; {HEIF_FIX}"
    for mark, kind in ((b"<!doctype html", "HTML"), (b"<html", "HTML"), (b"<svg", "SVG"), (b"<?xml", "XML")):
        if text.startswith(mark):
            return f"is {kind}, not a picture"
    for mark, kind in ((b"%pdf", "a PDF"), (b"%!ps", "PostScript"), (b"pk\x03\x04", "a ZIP archive"), (b"{", "JSON")):
        if text.startswith(mark):
            return f"is {kind}, not a picture"
    return "is of no picture format that is read here"
