"""Finds pictures that look alike, by the edges of small grey copies.

A 64-bit difference hash missed half of the copies of smooth pictures (bench/lookalikes.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 16
MIN_CORRELATION = 0.9
"""Correlation of edges from which two thumbnails count as the same picture."""
ROUGHLY = 0.9
"""Correlation of 8 × 8 thumbnails from which a pair is compared at full size."""
FLAT = 2.0
"""Standard deviation in grey levels; below it a picture is too uniform to compare."""
BLOCK = 4_000_000
"""Largest number of similarities in memory."""

Vectors = NDArray[np.float32]


def grey_fingerprint(picture: Image.Image) -> bytes:
    """SIDE × SIDE grey values of a picture, row by row, one byte each."""
    return picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()


def look_alikes(
    thumbnails: NDArray[np.uint8], splits: NDArray[np.int_], *, alike: float = MIN_CORRELATION
) -> Iterator[tuple[int, int]]:
    """Index pairs of look-alikes in different splits; each pair once, the lower index first.

    thumbnails (n, SIDE × SIDE), splits (n,). All pairs of different splits are compared, first at 8 × 8.
    """
    half = SIDE // 2
    squares: Vectors = thumbnails.reshape(-1, half, 2, half, 2).mean(axis=(2, 4), dtype=np.float32)
    squares = squares.reshape(len(thumbnails), half * half)
    blank = squares.std(axis=1) < FLAT
    rough = _unit(squares - squares.mean(axis=1, keepdims=True))
    rough[blank] = 0
    for left, right in combinations(np.unique(splits), 2):
        ours, others = np.flatnonzero(splits == left), np.flatnonzero(splits == right)
        rough_others = rough[others].T
        step = max(1, BLOCK // len(others))
        for start in range(0, len(ours), step):
            block = ours[start : start + step]
            rows, columns = np.nonzero(rough[block] @ rough_others >= ROUGHLY)
            for first in range(0, len(rows), BLOCK // SIDE**3):
                part = slice(first, first + BLOCK // SIDE**3)
                a, b = block[rows[part]], others[columns[part]]
                close = (_edges(thumbnails[a]) * _edges(thumbnails[b])).sum(axis=1) >= alike
                for one, other in zip(a[close].tolist(), b[close].tolist(), strict=True):
                    yield min(one, other), max(one, other)


def look_alikes_of_all(thumbnails: NDArray[np.uint8], *, alike: float = MIN_CORRELATION) -> set[tuple[int, int]]:
    """As `look_alikes`, among all of (n, SIDE × SIDE): two halves are compared for each bit of the index."""
    index = np.arange(len(thumbnails))
    bits = range(len(thumbnails).bit_length())
    return {pair for bit in bits for pair in look_alikes(thumbnails, index >> bit & 1, alike=alike)}


def roughly_alike(one: bytes, other: bytes) -> float:
    """The correlation of two fingerprints at 8 × 8, −1 to 1: high where the same scene was taken twice; 0 if flat."""
    half = SIDE // 2
    squares = [
        np.frombuffer(grey, np.uint8).reshape(half, 2, half, 2).mean(axis=(1, 3)).ravel() for grey in (one, other)
    ]
    if min(each.std() for each in squares) < FLAT:
        return 0.0
    return float(np.corrcoef(*squares)[0, 1])


def _edges(thumbnails: NDArray[np.uint8]) -> Vectors:
    """Thumbnails (n, SIDE × SIDE) → differences of neighbouring pixels, unit vectors (n, 2 · SIDE · (SIDE − 1))."""
    grey = thumbnails.reshape(-1, SIDE, SIDE).astype(np.float32)
    return _unit(np.concatenate([np.diff(grey, axis=axis).reshape(len(grey), -1) for axis in (1, 2)], axis=1))


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    unit: Vectors = vectors / np.maximum(lengths, np.float32(1e-6))
    return unit
