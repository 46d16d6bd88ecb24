"""Time and memory of importing a label file of the size of AVA, with invented votes in the form of AVA.txt.

    python bench/ava_import.py [--rows 255530] [--pictures]

With --pictures there is an empty file for each picture, so that the search for pictures is timed too.
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
    """Write AVA.txt with `rows` rows; a thirteenth of them are on the test list."""
    rng = np.random.default_rng(0)
    names = rng.choice(960_000, rows, replace=False) + 1
    raters = rng.integers(78, 549, rows)
    with (root / "AVA.txt").open("w") as file:
        for number, (name, votes) in enumerate(zip(names, raters, strict=True), start=1):
            counts = " ".join(map(str, rng.multinomial(votes, SHARES)))
            file.write(f"{number} {name} {counts} 1 22 1396\n")
    (root / "generic_test.jpgl").write_text("".join(f"{name}\n" for name in names[: rows // 13]))
    if pictures:
        (root / "images").mkdir()
        for name in names:
            (root / "images" / f"{name}.jpg").touch()


def timed(root: Path, *, labels_only: bool) -> None:
    """Import, and print time and memory. Runs in a new process, so that the memory is only that of the import."""
    start = time.perf_counter()
    imported = import_set(ImportConfig("ava", root, root / "out", labels_only=labels_only, subset=True))
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{sum(imported.rows.values()):,} rows in {seconds:.1f} s ({time.process_time():.1f} s of CPU), {memory:.0f} MB"
    )


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
