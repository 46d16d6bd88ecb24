"""How fast the embedded photo model scores, and what its prepared tower saves.

    python bench/photo_speed.py FOLDER [--pictures 200]

Pictures a second with reasons and with --fast, from files, after loading and a first batch; the largest memory of
the process; milliseconds a picture of the tower as it is saved and as scoring prepares it. Nothing else should run.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch

from aesr1.app.score import Scorer
from aesr1.images.find import find_images
from aesr1.images.prefetch import prefetch_pool
from aesr1.model.load import PHOTO, load
from aesr1.model.predict import PredictSettings

ROUNDS, BATCHES = 5, (1, 4, 16)


def rate(pictures: list[Path], *, fast: bool) -> float:
    """Pictures a second."""
    scorer = Scorer(settings=PredictSettings(fast=fast))
    with prefetch_pool(len(pictures)) as pool:
        list(scorer.stream(pictures[:16], pool=pool))
        started = time.perf_counter()
        list(scorer.stream(pictures, pool=pool))
        return len(pictures) / (time.perf_counter() - started)


@torch.inference_mode()
def tower_time(batch: int, *, prepared: bool) -> float:
    """Milliseconds a picture, the best of some rounds."""
    tower = load(PHOTO, device="cpu", for_scoring=prepared).model.model.vision_tower
    pixels = torch.randn(batch, 3, 260, 260, generator=torch.Generator().manual_seed(0))
    times = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        tower(pixels)
        times.append(time.perf_counter() - started)
    return min(times[1:]) / batch * 1e3


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--pictures", type=int, default=200)
    given = parser.parse_args()
    pictures = find_images([given.folder])[0][: given.pictures]
    for name, fast in (("with reasons", False), ("--fast", True)):
        print(f"{name}: {rate(pictures, fast=fast):.1f} pictures/s")
    print(f"largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    for batch in BATCHES:
        plain, prepared = (tower_time(batch, prepared=prepared) for prepared in (False, True))
        print(f"tower, {batch} pictures: {plain:.0f} ms each as saved, {prepared:.0f} ms prepared")


if __name__ == "__main__":
    main()
