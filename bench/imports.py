"""Start-up time of `import aesr1` and `aesr1 --help`, measured on whole processes.

python bench/imports.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 7


def seconds(*command: str) -> list[float]:
    """Wall seconds of RUNS runs, after one warm-up run."""
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return times[1:]


if __name__ == "__main__":
    python = statistics.median(seconds(sys.executable, "-c", "pass"))
    package = statistics.median(seconds(sys.executable, "-c", "import aesr1"))
    help_page = statistics.median(seconds(sys.executable, "-m", "aesr1", "--help"))
    print(f"python alone          {python:.3f} s")
    print(f"import aesr1 adds     {package - python:.3f} s   (target < 0.1 s)")
    print(f"aesr1 --help          {help_page:.3f} s   (target < 0.5 s)")
