"""How long the intervals of all metrics take for many images, over the same draws and one by one.

    python bench/bootstrap.py [--images 250000] [--draws 1000]

Ratings with four decimals, scores with noise.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from aesr1.intervals import bootstrap, bootstrap_all
from aesr1.metrics import METRICS


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=250_000)
    parser.add_argument("--draws", type=int, default=1_000)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    human = rng.beta(4, 4, given.images).round(4)
    scores = np.clip(human + rng.normal(0, 0.1, given.images), 0, 1)
    started = time.perf_counter()
    together = bootstrap_all(METRICS, [(scores, human)], draws=given.draws)
    print(f"together {time.perf_counter() - started:.1f} s", flush=True)
    for metric in METRICS:
        before = time.perf_counter()
        found = bootstrap(metric, scores, human, draws=given.draws)
        seconds = time.perf_counter() - before
        assert found == together[metric.name]
        print(f"{metric.name:17} {found.value:.4f} [{found.low:.4f}, {found.high:.4f}] {seconds:5.1f} s", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"largest memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
