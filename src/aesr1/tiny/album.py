"""Draws an album of scenes with simulated ratings, in the form of any other data set."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from aesr1.errors import AesError
from aesr1.json_lines import write_rows
from aesr1.outputs import write_run
from aesr1.progress import progress_bar
from aesr1.records import Rating
from aesr1.tiny.raters import HIGHEST, LOWEST, cast_votes
from aesr1.tiny.scenes import DOMAIN, STYLES, draw_scene, sample_scene
from aesr1.worker_processes import worker_pool


@dataclass(frozen=True)
class AlbumConfig:
    """How many scenes, and of which styles. Without `split`, the last tenth is val and the rest train."""

    output: Path
    n: int = 1_000
    seed: int = 0
    split: str | None = None
    styles: tuple[str, ...] = STYLES[:3]


def make_album(config: AlbumConfig) -> Path:
    """Write `images/`, `ratings.jsonl` (its path is returned) and `scenes.jsonl` with the properties of each scene."""
    started = time.time()
    target = config.output / "ratings.jsonl"
    if target.exists():
        raise AesError(f"{target} exists", fix="choose another output folder; nothing is overwritten")
    if config.n < 1:
        raise AesError(f"n is {config.n}", fix="use at least one scene")
    unknown = [style for style in config.styles if style not in STYLES]
    if unknown:
        raise AesError(f"unknown style {', '.join(unknown)}", fix=f"choose from {', '.join(STYLES)}")
    (config.output / "images").mkdir(parents=True, exist_ok=True)
    rows: list[Rating] = []
    with (config.output / "scenes.jsonl").open("w") as scenes, progress_bar("scenes", total=config.n) as progress:
        for rating, scene in _rated_scenes(config):
            rows.append(rating)
            scenes.write(scene + "\n")
            progress.advance(1)
    write_rows(target, rows)
    write_run(config.output, "ratings scenes", config, started=started)
    return target


def _rated_scenes(config: AlbumConfig) -> Iterator[tuple[Rating, str]]:
    with worker_pool() as workers:
        yield from workers.map(partial(_rated_scene, config), range(config.n), chunksize=16)


def _rated_scene(config: AlbumConfig, number: int) -> tuple[Rating, str]:
    """Draw one picture; its rating, and its properties as JSON."""
    rng = np.random.default_rng([23, config.seed, number])
    scene = sample_scene(rng, styles=config.styles)
    votes = cast_votes(scene, rng)
    name = f"images/{number:05d}.png"
    draw_scene(scene).save(config.output / name)
    marks = np.arange(LOWEST, HIGHEST + 1)
    mean = float(np.average(marks, weights=votes))
    std = float(np.sqrt(np.average((marks - mean) ** 2, weights=votes)))
    rating = Rating(
        image=name,
        score=(mean - LOWEST) / (HIGHEST - LOWEST),
        domain=DOMAIN,
        split=config.split or ("val" if number >= config.n * 0.9 else "train"),
        rater_std=std / (HIGHEST - LOWEST),
        raters=int(votes.sum()),
        votes=tuple(int(count) for count in votes),
    )
    return rating, json.dumps({"image": name, **asdict(scene)})
