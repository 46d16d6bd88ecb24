"""What several threads gain that share one `Scorer`, each with one picture a call, as servers and training loops do.

    python bench/scorer_threads.py FOLDER [--pictures 64] [--rounds 5] [--model MODEL]

Pictures a second of the main thread, which made the `Scorer`, and of 1, 2, 4 and 8 other threads, and the ratio to the
main thread: the median of rounds in which they take turns; with reasons and with --fast. The largest difference of a
score from that of the main thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aesr1.app.score import Scorer
from aesr1.images.find import find_images
from aesr1.model.predict import PredictSettings

MAIN = 0
THREADS = (MAIN, 1, 2, 4, 8)


def scored(scorer: Scorer, pictures: list[Path], threads: int) -> tuple[float, list[float]]:
    """Pictures a second, and the scores; by so many threads that did not make the scorer, or by the main thread."""
    started = time.perf_counter()
    with ThreadPoolExecutor(threads or 1) as pool:
        asked = (pool.map if threads else map)(lambda picture: scorer.score([picture]), pictures)
        rows = [row for rows in asked for row in rows]
    rate = len(pictures) / (time.perf_counter() - started)
    return rate, [row.score for row in rows if row.score is not None]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model")
    given = parser.parse_args()
    pictures = find_images([given.folder])[0][: given.pictures]
    for name, fast in (("with reasons", False), ("--fast", True)):
        scorer = Scorer(given.model, settings=PredictSettings(fast=fast))
        _, alone = scored(scorer, pictures[:8], MAIN)
        rates: dict[int, list[float]] = {threads: [] for threads in THREADS}
        largest = 0.0
        for _ in range(given.rounds):
            for threads in THREADS:
                rate, scores = scored(scorer, pictures, threads)
                rates[threads].append(rate)
                alone = scores if threads == MAIN else alone
                largest = max(largest, *(abs(one - other) for one, other in zip(scores, alone, strict=True)))
        for threads, found in rates.items():
            ratios = [one / other for one, other in zip(found, rates[MAIN], strict=True)]
            span = f"{min(ratios):.2f}–{max(ratios):.2f}"
            who = {MAIN: "the main thread", 1: "1 other thread"}.get(threads, f"{threads} other threads")
            print(
                f"{name}, {who}: {statistics.median(found):.1f} pictures/s, "
                f"{statistics.median(ratios):.2f} × the main thread ({span})",
                flush=True,
            )
        print(f"{name}: largest difference of a score {largest:.0e}")


if __name__ == "__main__":
    main()
