"""PNG files that no program would write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence


def png(
    width: int, height: int, rows: bytes, *, kind: int = 2, depth: int = 8, more: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """A PNG whose head and chunks are as given."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + b"".join(chunk(*pair) for pair in more) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
