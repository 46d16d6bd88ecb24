"""The picture of a request: a data URL, a file that was sent, or an address on a server that may be fetched from."""

from __future__ import annotations

import base64
import http.client
import time
import urllib.error
import urllib.request
from pathlib import PurePath
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote

from aesr1.errors import AesError
from aesr1.images.formats import RAW_SUFFIXES, open_raw
from aesr1.images.load import open_image
from aesr1.images.srgb import size_within
from aesr1.server.settings import MAX_SOURCE_PIXELS, ServeConfig, origin_of_address

if TYPE_CHECKING:
    from PIL import Image

URL_SAFE = str.maketrans("-_", "+/")
"""The letters of base64 for addresses, and the ordinary ones."""
FETCH_SECONDS = 20.0
SEND_IT = "send the picture itself, as data:image/jpeg;base64,…"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follow nothing: an answer could lead to a server that is not listed."""


def picture_at(url: str, config: ServeConfig) -> Image.Image:
    """The upright RGB picture in a data URL or at a listed address. AesError where it cannot be had."""
    raw = _of_data_url(url) if url[:5].lower() == "data:" else _fetched(url, config)
    return open_image(raw, max_pixels=config.max_pixels, max_source_pixels=MAX_SOURCE_PIXELS)


def picture_in(file: BinaryIO, name: str, config: ServeConfig) -> Image.Image:
    """The upright RGB picture in a file that was sent; its name tells camera RAW. AesError where it is none."""
    source: BinaryIO | Image.Image = file
    if PurePath(name).suffix.lower() in RAW_SUFFIXES:
        source = open_raw(file, name=name)
        source.draft("RGB", size_within(source.size, min(config.max_pixels, MAX_SOURCE_PIXELS)))  # of JPEG
    return open_image(source, max_pixels=config.max_pixels, max_source_pixels=MAX_SOURCE_PIXELS)


def _of_data_url(url: str) -> bytes:
    head, _, data = url.partition(",")
    if not head.lower().endswith(";base64"):
        raise AesError("the picture's data URL is not in base64", fix=SEND_IT)
    letters = "".join((unquote(data) if "%" in data else data).split()).translate(URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except ValueError as error:
        raise AesError(f"the picture's base64 is broken: {error}", fix=SEND_IT) from error


def _fetched(url: str, config: ServeConfig) -> bytes:
    """The bytes at an address, if its server is listed. Redirections are not followed."""
    where = f"the picture's address is {url[:40]!r}"
    if not config.fetch_from:
        raise AesError(f"{where}, and this server fetches nothing", fix=SEND_IT)
    try:
        origin = origin_of_address(url)
    except AesError as error:
        raise AesError(f"{where}, which is no address of a server", fix=SEND_IT) from error
    if origin not in map(origin_of_address, config.fetch_from):
        fix = f"{SEND_IT}, or name one on {', '.join(config.fetch_from)}"
        raise AesError(f"{where}, which this server does not fetch from", fix=fix)
    try:
        with urllib.request.build_opener(_NoRedirects).open(url, timeout=FETCH_SECONDS) as answer:
            raw, ends = bytearray(), time.monotonic() + FETCH_SECONDS
            while len(raw) <= config.max_upload and (piece := answer.read1(1 << 16)):
                raw += piece
                if time.monotonic() > ends:
                    raise TimeoutError
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = f"status {error.code}" if isinstance(error, urllib.error.HTTPError) else type(error).__name__
        raise AesError(f"{where}, and fetching it failed: {reason}", fix=SEND_IT) from error
    if len(raw) > config.max_upload:
        raise AesError(f"{where}, and it holds more than {config.max_upload:,} bytes", fix="make it smaller")
    return bytes(raw)
