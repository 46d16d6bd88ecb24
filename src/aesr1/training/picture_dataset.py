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
    """AesError that counts missing and broken pictures and names the first, before a model loads."""
    bad = [path for path in paths if not _is_picture(path)]
    if bad:
        raise AesError(
            f"{len(bad)} of {len(paths):,} images are missing or not pictures, first: {bad[0]}",
            fix="put them back, or make the file of rows again without them",
        )


def _is_picture(path: str) -> bool:
    """Reads only the header: decoding 15,000 pictures would take minutes."""
    try:
        with Image.open(path):
            return True
    except (OSError, ValueError, SyntaxError):
        return False
