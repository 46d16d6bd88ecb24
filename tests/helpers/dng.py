"""A camera RAW file as small as can be, for tests."""

from __future__ import annotations

import struct

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 10: 8}
"""Bytes of a value, by TIFF's type."""
_HERE = b"here"
"""Stands for the place of a directory's pixels, which is known when the tags are."""


def dng(
    width: int, height: int, values: list[int], *, preview: tuple[bytes, int, int] | None = None, orientation: int = 1
) -> bytes:
    """A DNG of 16-bit Bayer values. The tags are those of the DNG specification 1.4.

    preview: a JPEG, its width and height. orientation: as in EXIF.
    """
    data = struct.pack(f"<{width * height}H", *values)
    one, none = struct.pack("<ii", 1, 1), struct.pack("<ii", 0, 1)
    tags = [  # tag, type, content
        *_pixels(bytes(4), width, height, len(data), bits=(16,), compression=1, colours=32803),
        (271, 2, b"aesr1\0"),
        (272, 2, b"test\0"),
        (274, 3, struct.pack("<H", orientation)),
        (33421, 3, struct.pack("<HH", 2, 2)),
        (33422, 1, bytes([0, 1, 1, 2])),  # red green, green blue
        (50706, 1, bytes([1, 4, 0, 0])),
        (50707, 1, bytes([1, 1, 0, 0])),
        (50708, 2, b"aesr1 test\0"),
        (50717, 4, struct.pack("<I", 65535)),
        (50721, 10, one + none * 3 + one + none * 3 + one),  # colour matrix
        (50728, 5, one * 3),
        (50778, 3, struct.pack("<H", 21)),
    ]
    file = _directory(8, tags, data, last=preview is None)
    if preview is not None:
        jpeg, *size = preview
        kind = struct.pack("<I", 1)
        tags = _pixels(kind, *size, len(jpeg), bits=(8, 8, 8), compression=7, colours=6)
        file += _directory(8 + len(file), tags, jpeg, last=True)
    return b"II*\0" + struct.pack("<I", 8) + file


def _pixels(
    kind: bytes, width: int, height: int, size: int, *, bits: tuple[int, ...], compression: int, colours: int
) -> list[tuple[int, int, bytes]]:
    return [
        (254, 4, kind),
        (256, 4, struct.pack("<I", width)),
        (257, 4, struct.pack("<I", height)),
        (258, 3, struct.pack(f"<{len(bits)}H", *bits)),
        (259, 3, struct.pack("<H", compression)),
        (262, 3, struct.pack("<H", colours)),
        (273, 4, _HERE),
        (277, 3, struct.pack("<H", len(bits))),
        (278, 4, struct.pack("<I", height)),
        (279, 4, struct.pack("<I", size)),
    ]


def _directory(at: int, tags: list[tuple[int, int, bytes]], data: bytes, *, last: bool) -> bytes:
    """A TIFF directory that begins at this byte of the file, with its long values and its pixels."""
    tags = sorted(tags)
    start = at + 2 + 12 * len(tags) + 4
    place = start + sum(len(content) + len(content) % 2 for _, _, content in tags if len(content) > 4)
    data += bytes(len(data) % 2)
    table = body = b""
    for tag, kind, content in tags:
        table += struct.pack("<HHI", tag, kind, len(content) // SIZES[kind])
        if content is _HERE:
            table += struct.pack("<I", place)
        elif len(content) <= 4:
            table += content.ljust(4, b"\0")
        else:
            table += struct.pack("<I", start + len(body))
            body += content + bytes(len(content) % 2)
    after = 0 if last else place + len(data)
    return struct.pack("<H", len(tags)) + table + struct.pack("<I", after) + body + data
