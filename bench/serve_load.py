"""The server under load, against scoring the same pictures offline: pictures a second, errors, memory.

    python bench/serve_load.py PHOTOS [--clients 32] [--seconds 60] [--fast]

Offline and server take turns, each with a process of its own, twice: what else the machine does then falls on both.
Each client sends one picture at a time as a form, and the next when the answer is there.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import httpx2 as httpx

OFFLINE = """
import json, sys, time
from aesr1 import Scorer
from aesr1.images.prefetch import prefetch_pool
from aesr1.model.predict import PredictSettings
paths, fast = json.loads(sys.stdin.read()), sys.argv[1] == "1"
with prefetch_pool(len(paths)) as pool:
    scorer = Scorer(settings=PredictSettings(fast=fast))
    scorer.score(paths[:32])
    begun = time.monotonic()
    rows = list(scorer.stream(paths, pool=pool))
print(len(paths) / (time.monotonic() - begun))
assert all(row.score is not None for row in rows)
"""


def offline(paths: list[Path], fast: bool) -> float:
    """Pictures a second of `Scorer.stream`, opened by worker processes as `aesr1 score` does."""
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(int(fast))],
        input=json.dumps(list(map(str, paths))),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


def resident(process: int) -> float:
    """Memory of a process in MiB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def load(address: str, pictures: list[bytes], clients: int, seconds: float, fast: bool) -> tuple[int, int]:
    """The numbers of scored pictures and of errors."""
    scored = errors = 0
    ends, source = time.monotonic() + seconds, itertools.cycle(pictures)

    async def client(http: httpx.AsyncClient) -> None:
        nonlocal scored, errors
        while time.monotonic() < ends:
            files, fields = {"images": ("photo.jpg", next(source))}, {"reasons": json.dumps(not fast)}
            answer = await http.post(f"{address}/v1/score", files=files, data=fields)
            good = answer.status_code == 200 and answer.json()["predictions"][0]["score"] is not None
            scored, errors = scored + good, errors + (not good)

    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=clients)) as http:
        await asyncio.gather(*(client(http) for _ in range(clients)))
    return scored, errors


def served(pictures: list[bytes], clients: int, seconds: float, fast: bool) -> tuple[float, int, list[float]]:
    """Pictures a second, errors, and the memory after a sixth of the time and at the end in MiB."""
    process = subprocess.Popen(
        [sys.executable, "-m", "aesr1", "serve", "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        address = next(line for line in process.stderr if "serves" in line).split(" at ")[-1].partition(";")[0]
        asyncio.run(load(address, pictures, clients, seconds / 6, fast))
        memory = [resident(process.pid)]
        begun = time.monotonic()
        scored, errors = asyncio.run(load(address, pictures, clients, seconds, fast))
        rate = scored / (time.monotonic() - begun)
        return rate, errors, [*memory, resident(process.pid)]
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--fast", action="store_true")
    given = parser.parse_args()
    paths = sorted(path.absolute() for path in given.photos.iterdir())
    pictures = [path.read_bytes() for path in paths]
    for number in (1, 2):
        alone = offline(paths, given.fast)
        rate, errors, memory = served(pictures, given.clients, given.seconds, given.fast)
        growth = memory[1] / memory[0] - 1
        print(
            f"run {number}: offline {alone:.1f} pictures/s; {given.clients} clients for {given.seconds:.0f} s: "
            f"{rate:.1f}/s, {rate / alone:.2f} of it, {errors} errors; "
            f"memory {memory[0]:.0f} MiB after a sixth, {memory[1]:.0f} MiB at the end ({growth:+.1%})"
        )


if __name__ == "__main__":
    main()
