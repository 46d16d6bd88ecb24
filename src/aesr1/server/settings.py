"""The settings of the server: model, address and limits."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from aesr1.contract import MAX_PIXELS
from aesr1.errors import AesError

MAX_SOURCE_PIXELS = 50_000_000
"""Largest picture of a request; a larger JPEG is decoded reduced."""


@dataclass(frozen=True)
class ServeConfig:
    """The model, the address, and the limits of a request."""

    model: str | None = None  # a folder, a hub id, None for the embedded photo model
    host: str = "127.0.0.1"
    port: int = 8000  # 0: any that is free
    max_pixels: int = MAX_PIXELS
    max_new_tokens: int = 512  # of a reply; a request for more gets this many
    max_batch: int = 16
    max_waiting: int = 256  # replies in the queue; more are turned away with 503
    max_body: int = 20_000_000  # bytes of JSON
    max_upload: int = 100_000_000  # bytes of files in one request
    max_pictures: int = 64  # of one request for scores
    max_prompt_tokens: int = 4_096  # of a request's text
    max_batch_tokens: int = 65_536  # of a batch: replies × the longest prompt and reply
    max_connections: int = 256
    header_seconds: float = 10.0  # for the head of a request
    body_seconds: float = 60.0  # for the body of a request
    least_rate: int = 100_000  # bytes a second of files, after body_seconds
    api_key: str | None = None  # what clients send as "Authorization: Bearer …"; None: no key is asked for
    fetch_from: tuple[str, ...] = ()  # servers that pictures are fetched from, such as https://example.com
    gather: float = 0.01  # seconds that a batch waits for more requests
    grace: int = 5  # seconds for running requests when the server ends
    device: str | None = None

    def __post_init__(self) -> None:
        if min(self.max_pixels, self.max_new_tokens, self.max_batch, self.max_waiting, self.max_body) < 1:
            raise AesError(f"these settings are not valid: {self}", fix="pixels, tokens, batch and limits begin at 1")
        limits = (self.max_prompt_tokens, self.max_batch_tokens, self.max_connections)
        if min(*limits, self.max_upload, self.max_pictures) < 1 or self.api_key == "":
            raise AesError("a limit is 0, or the API key is empty", fix="limits begin at 1; leave out an empty key")
        if not 0 <= self.port < 65_536 or self.gather < 0:
            raise AesError(f"there is no port {self.port}, or no {self.gather} s", fix="ports are 0 to 65535")
        for server in self.fetch_from:
            origin_of_address(server)


def origin_of_address(address: str) -> tuple[str, str, int]:
    """Scheme, host and port of a web address. AesError where it is none, or holds a name or password."""
    try:
        parts = urlsplit(address)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        parts, port = None, 0
    if parts is None or not parts.hostname or parts.username is not None or parts.password is not None:
        raise AesError(f"{address[:80]!r} is not the address of a server", fix="give one like https://example.com")
    return parts.scheme, parts.hostname, port
