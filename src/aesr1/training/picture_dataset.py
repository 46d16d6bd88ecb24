"""Rows with picture paths as a data set for TRL."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from datasets import Dataset
from PIL import Image

from aesr1.contract import PROMPT
from aesr1.errors import AesError
from aesr1.images.load import open_image
from aesr1.images.prefetch import prefetch_images, prefetch_pool

CHECKED_PIXELS = 128 * 128


def picture_dataset(rows: Sequence[dict[str, Any]], *, max_pixels: int) -> Dataset:
    """A data set for TRL: the picture of each row is opened and shrunk when the row is fetched.

    GRPO fetches a picture K times in a row and again for every micro-batch, so the last pictures are cached.
    """

    @lru_cache(maxsize=1024)
    def opened(path: str) -> Image.Image:
        return open_image(path, max_pixels=max_pixels)

    def fetch(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        size = len(columns["image"])
        return {
            **columns,
            "image": [opened(path) for path in columns["image"]],
            "prompt": [[{"role": "user", "content": PROMPT}] for _ in range(size)],
        }

    return Dataset.from_list(list(rows)).with_transform(fetch)


def check_images(paths: Sequence[str]) -> None:
    """AesError that counts the pictures that cannot be used and names the first. All are decoded, small."""
    with prefetch_pool(len(paths)) as pool:
        opened = prefetch_images(paths, max_pixels=CHECKED_PIXELS, pool=pool, depth=256)
        bad = [picture.problem for picture in opened if isinstance(picture, AesError)]
    if bad:
        raise AesError(
            f"{len(bad)} of {len(paths):,} images cannot be used, first: {bad[0]}",
            fix="put them back, or make the file of rows again without them",
        )
