"""What memory `aesr1 score` needs by the number of pictures.

    python bench/flat_memory.py [--pictures 1000000] [--folder /dev/shm/flat]

As many names of one small picture, a thousand in a folder, go through `score_files` into a .jsonl: they are found,
opened by worker processes, hashed, written and synced. The model's forward pass alone is replaced, by a constant.
Then the same command runs again, which finds all rows done. Prints the resident memory of the process as rows are
yielded and written, and the time. Each row is synced: --folder in memory measures this program, not the disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from PIL import Image

from aesr1.app.score import ScoreConfig, score_files
from aesr1.model import predict, resumed_rows
from aesr1.model.predict import Expectation, PredictSettings

IN_FOLDER, LINKS = 1_000, 50_000
SHOWN = (1, 10_000, 100_000, 1_000_000)


def fill(folder: Path, pictures: int) -> None:
    """Names of a few small pictures: a file has at most 65,000 names on ext4."""
    for number in range(pictures):
        first = folder.with_name(f"{number // LINKS:05d}.source")
        if number % LINKS == 0:
            Image.effect_noise((24, 16), 50 + number // LINKS).convert("RGB").save(first, "JPEG")
        place = folder / f"{number // IN_FOLDER:05d}"
        if number % IN_FOLDER == 0:
            place.mkdir()
        os.link(first, place / f"{number:08d}.jpg")


def run(folder: Path, *, fast: bool = True) -> None:
    """Score the folder, and print memory and time at some counts."""
    process, started, counted = psutil.Process(), time.perf_counter(), 0
    add = resumed_rows.ResumedRows.add

    def shown(what: str, count: int) -> None:
        if count in SHOWN:
            memory, seconds = process.memory_info().rss / 2**20, time.perf_counter() - started
            print(f"{what} {count:>9,}: {memory:6.0f} MiB, {seconds:6.0f} s", flush=True)

    def counting(self: resumed_rows.ResumedRows, row: predict.Prediction) -> None:
        nonlocal counted
        counted += 1
        add(self, row)
        shown("written", counted)

    resumed_rows.ResumedRows.add = counting  # type: ignore[method-assign]
    config = ScoreConfig(
        (str(folder / "pictures"),), output=folder / "rows.jsonl", settings=PredictSettings(fast=fast), quiet=True
    )
    for count, _ in enumerate(score_files(config), start=1):
        shown("yielded", count)
    resumed_rows.ResumedRows.add = add  # type: ignore[method-assign]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("flat-memory"))
    given = parser.parse_args()

    def constant(vlm: object, pictures: Sequence[object], replies: Sequence[str]) -> list[Expectation]:
        return [Expectation(0.5, 0.1)] * len(pictures)

    predict.expect_scores = constant  # type: ignore[assignment]
    given.folder.mkdir(parents=True)
    try:
        (given.folder / "pictures").mkdir()
        fill(given.folder / "pictures", given.pictures)
        for title in ("scored", "the same command again"):
            print(title)
            run(given.folder)
    finally:
        shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
