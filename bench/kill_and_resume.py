"""Whether `aesr1 score` that is killed again and again loses a row or writes one twice.

    python bench/kill_and_resume.py FOLDER [--pictures 10000] [--kills 10] [--seed 0]

Copies of the folder's pictures under new names, each with other bytes after its end, so that none is a copy of another,
are scored with --fast. The command is killed (SIGKILL) at random moments and given again, and at last runs to its end.
Prints the rows at each kill, what is missing or twice at the end, whether every whole row of every kill is still there,
and the time.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import cycle, islice
from pathlib import Path

from aesr1.images.find import find_images
from aesr1.json_lines import read_rows
from aesr1.records import Prediction


def copies(sources: list[Path], folder: Path, count: int) -> set[str]:
    """The paths of that many pictures of different bytes in a new folder."""
    folder.mkdir()
    paths = []
    for number, source in enumerate(islice(cycle(sources), count)):
        paths.append(folder / f"{number:05d}{source.suffix}")
        paths[-1].write_bytes(source.read_bytes() + f"copy {number}".encode())
    return {str(path) for path in paths}


def whole_rows(output: Path) -> list[bytes]:
    """The rows that were written to their end."""
    return output.read_bytes().split(b"\n")[:-1] if output.exists() else []


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random_moments = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as place:
        pictures = copies(find_images([given.folder])[0], Path(place) / "pictures", given.pictures)
        output = Path(place) / "scores.jsonl"
        command = [sys.executable, "-m", "aesr1", "score", str(Path(place) / "pictures"), "--fast", "--quiet"]
        command += ["-o", str(output)]
        kept: Counter[bytes] = Counter()
        started = time.perf_counter()
        # The next number of rows may be reached before the command begins again: then it is killed while it starts.
        for rows in sorted(random_moments.sample(range(given.pictures), given.kills)):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while len(whole_rows(output)) < rows and process.poll() is None:
                time.sleep(0.1)
            time.sleep(random_moments.random())
            process.kill()
            process.wait()
            kept |= Counter(whole_rows(output))
            print(
                f"killed after {time.perf_counter() - started:.0f} s with {len(whole_rows(output)):,} rows", flush=True
            )
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seconds = time.perf_counter() - started
        found = Counter(row.image for row in read_rows(output, Prediction) if row.score is not None)
        print(
            f"{given.pictures:,} pictures, {given.kills} kills, {seconds:.0f} s: "
            f"{len(pictures - found.keys())} without a row, {found.total() - len(found)} rows twice, "
            f"{len(found.keys() - pictures)} of no picture, "
            f"{(kept - Counter(whole_rows(output))).total()} rows lost after they were written"
        )


if __name__ == "__main__":
    main()
