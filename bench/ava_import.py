"""How long a file of AVA's size takes to become ratings.jsonl, and how much memory: made-up votes in AVA.txt's form.

    python bench/ava_import.py [--rows 255530] [--pictures]

With --pictures an empty file stands for each picture, so that looking for them is timed as well.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from aesr1.ratings.public_sets import ImportConfig, import_set

SHARES = [0.01, 0.02, 0.05, 0.12, 0.30, 0.26, 0.14, 0.06, 0.03, 0.01]


def make(root: Path, rows: int, *, pictures: bool) -> None:
    """AVA.txt with so many rows, a thirteenth of them on the test list."""
    rng = np.random.default_rng(0)
    names = rng.choice(960_000, rows, replace=False) + 1
    raters = rng.integers(78, 549, rows)
    with (root / "AVA.txt").open("w") as file:
        for number, (name, many) in enumerate(zip(names, raters, strict=True), start=1):
            votes = " ".join(map(str, rng.multinomial(many, SHARES)))
            file.write(f"{number} {name} {votes} 1 22 1396\n")
    (root / "generic_test.jpgl").write_text("".join(f"{name}\n" for name in names[: rows // 13]))
    if pictures:
        (root / "images").mkdir()
        for name in names:
            (root / "images" / f"{name}.jpg").touch()


def timed(root: Path, *, labels_only: bool) -> None:
    """In a process of its own, so that its memory is its own."""
    began = time.perf_counter()
    found = import_set(ImportConfig("ava", root, root / "out", labels_only=labels_only))
    seconds = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{sum(found.rows.values()):,} rows in {seconds:.1f} s ({time.process_time():.1f} s of CPU), {memory:.0f} MB")


def main() -> None:
    """Make the files and import them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=255_530)
    parser.add_argument("--pictures", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), arguments.rows, pictures=arguments.pictures)
        labels_only = {"labels_only": not arguments.pictures}
        child = multiprocessing.get_context("spawn").Process(target=timed, args=(Path(folder),), kwargs=labels_only)
        child.start()
        child.join()


if __name__ == "__main__":
    main()
