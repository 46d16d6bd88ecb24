"""What several threads gain that share one `Scorer`, each with one picture a call, as servers and training loops do.

    python bench/scorer_threads.py FOLDER [--pictures 64] [--rounds 5] [--model MODEL]

Pictures a second with 1, 2, 4 and 8 threads, and the ratio to one thread: the median of rounds in which they take
turns; with reasons and with --fast. The largest difference of a score from that of one thread.
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

THREADS = (1, 2, 4, 8)


def scored(scorer: Scorer, pictures: list[Path], threads: int) -> tuple[float, list[float]]:
    """Pictures a second, and the scores."""
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        rows = [row for rows in pool.map(lambda picture: scorer.score([picture]), pictures) for row in rows]
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
        _, alone = scored(scorer, pictures[:8], 1)
        rates: dict[int, list[float]] = {threads: [] for threads in THREADS}
        largest = 0.0
        for _ in range(given.rounds):
            for threads in THREADS:
                rate, scores = scored(scorer, pictures, threads)
                rates[threads].append(rate)
                alone = scores if threads == 1 else alone
                largest = max(largest, *(abs(one - other) for one, other in zip(scores, alone, strict=True)))
        for threads, found in rates.items():
            ratios = [one / other for one, other in zip(found, rates[1], strict=True)]
            span = f"{min(ratios):.2f}–{max(ratios):.2f}"
            print(
                f"{name}, {threads} threads: {statistics.median(found):.1f} pictures/s, "
                f"{statistics.median(ratios):.2f} × one thread ({span})"
            )
        print(f"{name}: largest difference of a score {largest:.0e}")


if __name__ == "__main__":
    main()
