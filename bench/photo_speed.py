"""How fast the embedded photo model scores, against transformers' `generate`, and what its prepared tower saves.

    python bench/photo_speed.py FOLDER [--pictures 200]

Pictures a second with reasons and with --fast, from files, after loading and a first batch; the largest memory of
the process; the ratio to a plain loop over pictures with transformers' `generate`, in alternation, and how many replies
are the same; milliseconds a picture of the tower as it is saved and as scoring prepares it. Nothing else should run.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from pathlib import Path

import torch
from PIL import Image

from aesr1.app.score import Scorer
from aesr1.contract import PROMPT
from aesr1.images.find import find_images
from aesr1.images.prefetch import prefetch_pool
from aesr1.model.generate import chat_prompt
from aesr1.model.load import PHOTO, Vlm, load
from aesr1.model.predict import PredictSettings

ROUNDS, BATCHES = 5, (1, 4, 16)
PLAIN_SHARE = 10


def rate(pictures: list[Path], *, fast: bool) -> float:
    """Pictures a second."""
    scorer = Scorer(settings=PredictSettings(fast=fast))
    with prefetch_pool(len(pictures)) as pool:
        list(scorer.stream(pictures[:16], pool=pool))
        started = time.perf_counter()
        list(scorer.stream(pictures, pool=pool))
        return len(pictures) / (time.perf_counter() - started)


def plainly(vlm: Vlm, pictures: list[Path]) -> list[str]:
    """The replies of a loop as anyone would write it with transformers."""
    prompt, processor = chat_prompt(vlm, PROMPT), vlm.processor
    replies = []
    for path in pictures:
        with Image.open(path) as opened:
            inputs = processor(text=[prompt], images=[opened.convert("RGB")], return_tensors="pt")
        tokens = vlm.model.generate(**inputs, do_sample=False, max_new_tokens=512)
        replies.append(processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return replies


def compare_with_generate(pictures: list[Path]) -> None:
    """Print the ratios of pictures a second, ours over the plain loop, which sees fewer pictures in a round."""
    ratios, rates, same = [], [], 0
    few = len(pictures) // PLAIN_SHARE
    with prefetch_pool(len(pictures)) as pool:
        vlm, scorer = load(PHOTO, device="cpu"), Scorer(device="cpu")
        plainly(vlm, pictures[:2])
        list(scorer.stream(pictures[:16], pool=pool))
        for turn in range(ROUNDS):
            chosen = pictures[few * turn :][:few]
            started = time.perf_counter()
            replies = plainly(vlm, chosen)
            middle = time.perf_counter()
            rows = list(scorer.stream(pictures, pool=pool))
            ours = len(pictures) / (time.perf_counter() - middle)
            rates.append(few / (middle - started))
            ratios.append(ours / rates[-1])
            same += sum(reply == row.reply for reply, row in zip(replies, rows[few * turn :], strict=False))
    span = f"{min(ratios):.1f}–{max(ratios):.1f}, {ROUNDS} rounds"
    print(
        f"with reasons / one at a time by generate ({statistics.median(rates):.1f} pictures/s): "
        f"{statistics.median(ratios):.1f} × ({span}); {same} of {few * ROUNDS} replies are the same"
    )


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
    compare_with_generate(pictures)
    for batch in BATCHES:
        plain, prepared = (tower_time(batch, prepared=prepared) for prepared in (False, True))
        print(f"tower, {batch} pictures: {plain:.0f} ms each as saved, {prepared:.0f} ms prepared")


if __name__ == "__main__":
    main()
