"""Views of rated pictures: mirrored and a little cropped copies, for training on few pictures."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from aesr1.errors import AesError
from aesr1.images.load import open_image
from aesr1.json_lines import ratings_file, read_rows, write_rows
from aesr1.outputs import staged_output, write_run
from aesr1.records import Rating, ratings_of_split
from aesr1.worker_processes import worker_pool


@dataclass(frozen=True)
class ViewsConfig:
    """How many views of each picture, and how much they may lose."""

    ratings: Path
    output: Path
    views: int = 4  # of each picture; the first is the picture itself
    crop: float = 0.1  # largest share of width and height that is cut off
    split: str = "train"  # rows of other splits stay as they are
    seed: int = 0

    def __post_init__(self) -> None:
        if self.views < 1 or not 0 <= self.crop <= 0.5:
            raise AesError(
                f"views is {self.views}, crop {self.crop:g}", fix="give 1 view or more, a crop from 0 to 0.5"
            )


def write_views(config: ViewsConfig) -> Path:
    """Write `ratings.jsonl` and the pictures of the views; returns the path. Each view has the picture's own rating.

    AesError names the first picture that cannot be opened.
    """
    started = time.time()
    rows = read_rows(ratings_file(config.ratings), Rating)
    chosen = ratings_of_split(rows, config.split, where=config.ratings)
    with staged_output(config.output, "ratings.jsonl", "run.json", "images") as part:
        (part / "images").mkdir()
        with worker_pool() as workers:
            made = list(workers.map(partial(_views_of, config, part / "images"), chosen, chunksize=8))
        viewed = [
            replace(row, image=str(config.output.absolute() / "images" / name) if name else row.image)
            for row, names in zip(chosen, made, strict=True)
            for name in names
        ]
        write_rows(part / "ratings.jsonl", [*viewed, *(row for row in rows if row.split != config.split)])
        write_run(part, "ratings views", config, started=started, rows=len(viewed))
    return config.output / "ratings.jsonl"


def _views_of(config: ViewsConfig, folder: Path, rating: Rating) -> list[str]:
    """Write the views of a picture; their names, empty for the picture itself."""
    picture = open_image(rating.image)
    key = hashlib.blake2b(rating.image.encode(errors="surrogateescape"), digest_size=4)
    rng = np.random.default_rng([config.seed, *key.digest()])
    names = [""]
    for number in range(1, config.views):
        name = f"{Path(rating.image).stem}-{key.hexdigest()}-{number}.jpg"
        _view(picture, config.crop, rng, mirrored=number % 2 == 1).save(folder / name, quality=95)
        names.append(name)
    return names


def _view(picture: Image.Image, crop: float, rng: np.random.Generator, *, mirrored: bool) -> Image.Image:
    width, height = (max(1, round(side * (1 - crop * rng.random()))) for side in picture.size)
    left = int(rng.integers(picture.width - width + 1))
    top = int(rng.integers(picture.height - height + 1))
    view = picture.crop((left, top, left + width, top + height))
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else view
