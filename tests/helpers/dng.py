"""A camera RAW file as small as can be, for tests."""

import struct

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 10: 8}
"""Bytes of a value, by TIFF's type."""


def dng(width: int, height: int, values: list[int]) -> bytes:
    """A DNG of 16-bit Bayer values, without a preview. The tags are those of the DNG specification 1.4."""
    data = struct.pack(f"<{width * height}H", *values)
    one, none = struct.pack("<ii", 1, 1), struct.pack("<ii", 0, 1)
    words = {"width": struct.pack("<I", width), "height": struct.pack("<I", height)}
    tags = [  # tag, type, content
        (254, 4, bytes(4)),
        (256, 4, words["width"]),
        (257, 4, words["height"]),
        (258, 3, struct.pack("<H", 16)),
        (259, 3, struct.pack("<H", 1)),
        (262, 3, struct.pack("<H", 32803)),  # colour filter array
        (271, 2, b"aesr1\0"),
        (272, 2, b"test\0"),
        (273, 4, b"here"),  # the place of the values, put in below
        (274, 3, struct.pack("<H", 1)),
        (277, 3, struct.pack("<H", 1)),
        (278, 4, words["height"]),
        (279, 4, struct.pack("<I", len(data))),
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
    start = 8 + 2 + 12 * len(tags) + 4
    place = start + sum(len(content) + len(content) % 2 for _, _, content in tags if len(content) > 4)
    table = body = b""
    for tag, kind, content in tags:
        table += struct.pack("<HHI", tag, kind, len(content) // SIZES[kind])
        if content == b"here":
            table += struct.pack("<I", place)
        elif len(content) <= 4:
            table += content.ljust(4, b"\0")
        else:
            table += struct.pack("<I", start + len(body))
            body += content + bytes(len(content) % 2)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + table + bytes(4) + body + data
