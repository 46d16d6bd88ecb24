"""Receives the body of a request, JSON or a form with files, within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

from starlette.datastructures import FormData
from starlette.requests import Request

from aesr1.server.settings import HttpRefusal, ServeConfig

JSON, FORM = "application/json", "multipart/form-data"
MAX_FIELDS = 8


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
        raise _too_slow(config.body_seconds) from None


async def receive_form(request: Request, config: ServeConfig, *, max_files: int) -> FormData:
    """The fields and files of a form; the caller closes it. HttpRefusal as for JSON, and for other servers' pages."""
    require_type(request, FORM)
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):  # browsers ask only before JSON
        fix = "use the page of this server, or a program that is no browser"
        raise HttpRefusal(f"the request comes from a page of {origin[:80]}", fix=fix, status=403, code="other_origin")
    try:
        async with asyncio.timeout(config.upload_seconds):
            limited = _LimitedRequest(request.scope, request.receive)
            limited.limit = config.max_upload
            return await limited.form(max_files=max_files, max_fields=MAX_FIELDS, max_part_size=config.max_body)
    except TimeoutError:
        raise _too_slow(config.upload_seconds) from None


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
    limit = 0

    async def stream(self) -> AsyncGenerator[bytes, None]:
        async for piece in _limited(super().stream(), self.limit):
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


def _too_slow(seconds: float) -> HttpRefusal:
    fix = f"send the whole request within {seconds:g} s"
    return HttpRefusal("the request is not complete", fix=fix, status=408, code="timeout")
