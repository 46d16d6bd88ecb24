"""Time that a training on the CPU saves when it keeps freed memory: the same RAPO steps with and without, in pairs.

    python bench/freed_memory.py [--pairs 5] [--steps 6]

Each run is a separate process, because the setting of the C library cannot be undone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from importlib.resources import files
from pathlib import Path

from aesr1.rapo.train import main as rapo
from aesr1.tiny.album import AlbumConfig, make_album
from aesr1.training import run as training

RECIPE = str(files("aesr1.tiny") / "rapo.yaml")


def steps(keep: bool, ratings: Path, n: int, report: Path) -> None:
    """Train for `n` steps; write wall and system seconds and the peak in GiB."""
    if not keep:
        training._keep_freed_memory = lambda: None
    with tempfile.TemporaryDirectory() as folder:
        limits = ["--max_steps", str(n), "--validate_every", "0", "--output_dir", folder]
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        rapo(["--config", RECIPE, "--ratings", str(ratings), *limits])
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    report.write_text(json.dumps([wall, after.ru_stime - before.ru_stime, after.ru_maxrss / 2**20]))


def main() -> None:
    """Run the pairs and print medians, the ratio of wall times and its range."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    arguments = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    results: dict[bool, list[list[float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        make_album(AlbumConfig(Path(folder) / "scenes", n=64, seed=0))
        report = Path(folder) / "report.json"
        for pair in range(arguments.pairs):
            for keep in (True, False) if pair % 2 else (False, True):
                ratings = Path(folder) / "scenes" / "ratings.jsonl"
                child = spawn.Process(target=steps, args=(keep, ratings, arguments.steps, report))
                child.start()
                child.join()
                results[keep].append(json.loads(report.read_text()))
                report.unlink()
    for keep, rows in results.items():
        wall, system, peak = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{'kept' if keep else 'returned':10} {wall:5.1f} s, {system:4.1f} s of it system, {peak:.2f} GiB")
    ratios = [kept[0] / returned[0] for kept, returned in zip(results[True], results[False], strict=True)]
    print(f"kept / returned: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
