"""Groups pictures of one moment: look-alikes, and bursts by the time when they were taken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from aesr1.errors import AesError
from aesr1.images.load import open_image
from aesr1.images.look_alikes import SIDE, grey_fingerprint, look_alikes_of_all, roughly_alike

THUMBNAIL_PIXELS = 128 * 128
BURST_ALIKE = 0.6
"""`roughly_alike` of two pictures from which those taken shortly after one another show the same scene."""
EXIF, TAKEN, FRACTION, CAMERA = 0x8769, 0x9003, 0x9291, 0x0110
"""Tags of EXIF: the block of the camera, DateTimeOriginal, SubSecTimeOriginal; and, outside it, the model."""


class Sight(NamedTuple):
    """What grouping knows of a picture."""

    grey: bytes  # `grey_fingerprint`
    taken: float | None  # seconds since 1970, in the camera's own time; None where EXIF does not say
    camera: str


def see_pictures(paths: Sequence[str], pool: Executor | None) -> list[Sight | None]:
    """What there is to know of each picture; None for one that cannot be opened."""
    return list(pool.map(_see, paths, chunksize=8) if pool else map(_see, paths))


def similar_groups(sights: Sequence[Sight | None], *, seconds: float) -> list[list[int]]:
    """Indices of pictures that belong together; each picture is in one group, most are alone. Groups in order.

    Two belong together where they look alike, or where the same camera took them within so many seconds and they look
    roughly alike. A third that belongs to one of them belongs to both.
    """
    known = [index for index, sight in enumerate(sights) if sight is not None]
    grey = np.array([np.frombuffer(sight.grey, np.uint8) for sight in sights if sight], dtype=np.uint8)
    pairs = {(known[a], known[b]) for a, b in look_alikes_of_all(grey.reshape(-1, SIDE**2))}
    pairs |= set(_bursts(sights, seconds))
    rows, columns = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T
    joined = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(sights), len(sights)))
    labels = connected_components(joined, directed=False)[1] if sights else np.zeros(0, dtype=np.int64)
    groups: dict[int, list[int]] = {}
    for index, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(index)
    return list(groups.values())


def _bursts(sights: Sequence[Sight | None], seconds: float) -> Iterable[tuple[int, int]]:
    """Neighbours in time of the same camera that are close enough and roughly alike."""
    timed = sorted(
        (sight.camera, sight.taken, i) for i, sight in enumerate(sights) if sight and sight.taken is not None
    )
    for (camera, before, one), (same, after, other) in pairwise(timed):
        first, second = sights[one], sights[other]
        if camera != same or after - before > seconds or first is None or second is None:
            continue
        if roughly_alike(first.grey, second.grey) >= BURST_ALIKE:
            yield min(one, other), max(one, other)


def _see(path: str) -> Sight | None:
    try:
        grey = grey_fingerprint(open_image(path, max_pixels=THUMBNAIL_PIXELS))
    except AesError:
        return None
    taken, camera = None, ""
    with suppress(Exception), Image.open(path) as picture:  # broken EXIF raises errors of many types
        exif = picture.getexif()
        camera, details = str(exif.get(CAMERA, "")).strip("\0 "), exif.get_ifd(EXIF)
        digits = "".join(filter(str.isdigit, str(details.get(FRACTION, ""))))
        moment = datetime.strptime(str(details[TAKEN]).strip("\0 "), "%Y:%m:%d %H:%M:%S")  # no zone
        taken = (moment - datetime(1970, 1, 1)).total_seconds() + float(f"0.{digits or 0}")
    return Sight(grey, taken, camera)
