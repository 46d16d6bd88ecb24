"""Receives the body of a request, JSON or a form with files, within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import FormData
from starlette.requests import Request

from aesr1.server.errors import HttpRefusal
from aesr1.server.settings import ServeConfig

JSON, FORM = "application/json", "multipart/form-data"
MAX_FIELDS = 8
SLOT_SECONDS = 5.0
"""A form waits so long for one that is being received to end."""


def content_type(request: Request) -> str:
    """The type of a request's body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def receive_json(request: Request, config: ServeConfig) -> bytes:
    """The body of a request in JSON. HttpRefusal where it is of another type, too large, or too slow."""
    require_type(request, JSON)
    try:
        async with asyncio.timeout(config.body_seconds):
            return b"".join([piece async for piece in _limited(request.stream(), config.max_body)])
    except TimeoutError:
        raise _too_slow(f"send the whole request within {config.body_seconds:g} s") from None


async def receive_form(
    request: Request, config: ServeConfig, uploads: asyncio.Semaphore, *, max_files: int, max_field: int
) -> FormData:
    """The fields, of `max_field` bytes each, and the files of a form; the caller closes it.

    HttpRefusal as for JSON, for another server's page, and where all `uploads` are taken.
    """
    require_type(request, FORM)
    if "charset" in request.headers["content-type"].lower():  # some of Python's codecs take minutes
        raise HttpRefusal("the form names a charset", fix="send UTF-8", status=415, code="unsupported_media_type")
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):  # JSON is asked for before
        fix = "use the page of this server, or a program that is no browser"
        raise HttpRefusal(f"the request comes from a page of {origin[:80]}", fix=fix, status=403, code="other_origin")
    try:
        await asyncio.wait_for(uploads.acquire(), SLOT_SECONDS)
    except TimeoutError:
        fix = "try again later"
        raise HttpRefusal(
            "too many files are being received", fix=fix, status=503, code="overloaded", retry_after=5
        ) from None
    limited = _LimitedRequest(request.scope, request.receive)
    try:
        async with asyncio.timeout(config.body_seconds) as limited.deadline:
            limited.config = config
            return await limited.form(max_files=max_files, max_fields=MAX_FIELDS, max_part_size=max_field)
    except TimeoutError:
        seconds, rate = config.body_seconds, config.least_rate
        fix = f"send it within {seconds:g} s, or after that at {rate:,} bytes a second"
        raise _too_slow(fix) from None
    finally:
        uploads.release()


def require_type(request: Request, *types: str) -> str:
    """The type of a request's body; HttpRefusal where it is none of these."""
    given = content_type(request)
    if given not in types:
        fix = f"send Content-Type: {' or '.join(types)}"  # web pages may send other types without asking
        raise HttpRefusal(
            f"the request is not {' or '.join(types)}", fix=fix, status=415, code="unsupported_media_type"
        )
    return given


class _LimitedRequest(Request):
    config: ServeConfig
    deadline: asyncio.Timeout

    async def stream(self) -> AsyncGenerator[bytes, None]:
        ends = self.deadline.when() or 0.0
        async for piece in _limited(super().stream(), self.config.max_upload):
            ends += len(piece) / self.config.least_rate
            self.deadline.reschedule(ends)
            yield piece


async def _limited(stream: AsyncGenerator[bytes, None], limit: int) -> AsyncGenerator[bytes, None]:
    """The pieces of a body. HttpRefusal where it is too large.

    A body that is too large is read a little further, because few clients read an answer while sending.
    """
    size = 0
    async for piece in stream:
        size += len(piece)
        if size <= limit:
            yield piece
        elif size > 4 * limit:
            break
    if size > limit:
        fix = "send a smaller copy of the picture, or fewer at a time"
        raise HttpRefusal(f"the request is larger than {limit:,} bytes", fix=fix, status=413, code="request_too_large")


def _too_slow(fix: str) -> HttpRefusal:
    return HttpRefusal("the request is not complete", fix=fix, status=408, code="timeout")
