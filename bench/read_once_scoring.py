"""Scoring and rollouts that read the picture once, compared with `generate`: time and memory, on the same weights.

    python bench/read_once_scoring.py [--pairs 5] [--quick]

The Qwen2.5-VL of 19 M parameters of bench/read_once.py; pictures of 512 × 512 (324 tokens), two to score and four to
roll out, the paper's prompt, replies of exactly 200 tokens, float32. The two ways of a line alternate. Printed are the
ratio of the processor times of each pair on one thread, which other work on the machine disturbs least (median and
range), the ratio of operations, and the peak memory of each way in a separate process.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).resolve().parents[1] / name) for name in ("src", "scripts")]  # an installed aesr1 first

import numpy as np
import torch
from PIL import Image

from aesr1.contract import PROMPT
from aesr1.model.generate import model_inputs
from aesr1.model.load import Vlm
from aesr1.model.predict import PredictSettings, predict
from gpu_shape import Batch, build, language_part, processor_for, vision_part
from read_once import SHAPE, Setting, peak, trainer_of

IMAGES, GROUPS, REPLIES, LENGTH, SIDE = 2, 4, 8, 200, 512
SAMPLES = {"do_sample": True, "temperature": 0.6, "top_p": 1.0, "top_k": 0, "num_return_sequences": REPLIES}


def pictures(count: int = IMAGES) -> list[Image.Image]:
    """Noise: the time does not depend on the content of a picture."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)) for _ in range(count)]


def model_of() -> Vlm:
    """Random weights that never end a reply early."""
    processor = processor_for(SIDE**2)
    model = build(SHAPE, processor, dtype=torch.float32, device="cpu").eval()
    model.generation_config.update(min_new_tokens=LENGTH)
    return Vlm(model, processor, "bench", "0", SIDE**2)


def score(vlm: Vlm, **settings: Any) -> None:
    """`aesr1 score` of all pictures in one batch."""
    list(predict(vlm, pictures(), PredictSettings(max_new_tokens=LENGTH, **settings)))


@torch.inference_mode()
def one_at_a_time(vlm: Vlm, **drawing: Any) -> None:
    """The plain way: `generate` for each picture, which reads it once for every reply."""
    for picture in pictures():
        inputs = model_inputs(vlm, [picture], [""], PROMPT)
        vlm.model.generate(**inputs, max_new_tokens=LENGTH, pad_token_id=0, **drawing)


def prepare(vlm: Vlm, seen: list[Image.Image]) -> None:
    """The processor on a batch, ten times, because once is too short to measure."""
    for _ in range(10):
        model_inputs(vlm, seen, [""] * len(seen), PROMPT)


def roll_out(trainer: Any, *, once: bool) -> None:
    """A rollout of the real trainer: four groups of eight, from prompts to tokens."""
    trainer.read_once = once
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    prompts = [copy.deepcopy(message) for _ in range(GROUPS * REPLIES)]
    for number, picture in enumerate(pictures(GROUPS)):
        for prompt in prompts[number * REPLIES : (number + 1) * REPLIES]:
            prompt[0]["content"][0]["image"] = picture
    trainer._generate_single_turn(*trainer._tokenize_prompts(prompts), REPLIES)


def rollouts(*, once: bool) -> Callable[[], None]:
    """The trainer is made here, so that a process that only scores does not need it."""
    trainer = trainer_of(Setting(REPLIES, SIDE, LENGTH), Path(tempfile.mkdtemp()))
    return partial(roll_out, trainer, once=once)


def ways() -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """The ways that are compared, the slower one first."""
    vlm, trainer = model_of(), rollouts(once=True).args[0]  # type: ignore[attr-defined]
    greedy: dict[str, Any] = {"do_sample": False}
    return {
        f"scoring by {REPLIES} samples / by 1": (partial(score, vlm, samples=REPLIES), partial(score, vlm, samples=1)),
        f"{REPLIES} samples: one picture at a time by generate / ours": (
            partial(one_at_a_time, vlm, **SAMPLES),
            partial(score, vlm, samples=REPLIES),
        ),
        "one reply: one picture at a time by generate / ours": (
            partial(one_at_a_time, vlm, **greedy),
            partial(score, vlm, samples=1),
        ),
        "default scoring / --fast": (partial(score, vlm), partial(score, vlm, fast=True)),
        f"the processor: {REPLIES} pictures / one, {REPLIES} times": (
            partial(prepare, vlm, pictures(REPLIES)),
            partial(prepare, vlm, pictures(1) * REPLIES),
        ),
        f"rollout of {GROUPS} × {REPLIES}: TRL's way / ours": (
            partial(roll_out, trainer, once=False),
            partial(roll_out, trainer, once=True),
        ),
    }


def operations() -> tuple[float, float]:
    """Operations of reading one picture with its prompt, and of writing one reply."""
    patches = SIDE // 28 * 2
    prompt = model_inputs(model_of(), pictures()[:1], [""], PROMPT)["input_ids"].shape[1]
    decoder = language_part(SHAPE, Batch(1, prompt, 0, patches))
    whole = language_part(SHAPE, Batch(1, prompt, LENGTH, patches))
    head = 2.0 * SHAPE.text.hidden_size * SHAPE.text.vocab_size
    reading = vision_part(SHAPE, Batch(1, 0, 0, patches)).forward + decoder.forward + head
    return reading, whole.forward - decoder.forward + head * LENGTH


def expected() -> list[float]:
    """The ratio of operations of each of `ways`, without the tree of digits and its tags (about 60 tokens)."""
    reading, writing = operations()
    once, apart = reading + REPLIES * writing, REPLIES * (reading + writing)
    return [once / (reading + writing), apart / once, 1.0, (reading + writing) / reading, REPLIES, apart / once]


def seconds(work: Callable[[], None]) -> float:
    """Processor seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


ALONE: dict[str, Callable[[], Callable[[], None]]] = {
    f"{REPLIES} samples by generate": lambda: partial(one_at_a_time, model_of(), **SAMPLES),
    f"{REPLIES} samples by ours": lambda: partial(score, model_of(), samples=REPLIES),
    "1 sample by ours": lambda: partial(score, model_of(), samples=1),
    "fast scoring": lambda: partial(score, model_of(), fast=True),
    "rollout by TRL's way": lambda: rollouts(once=False),
    "rollout by ours": lambda: rollouts(once=True),
}
"""What is measured for memory, each in a separate process."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one pair, no memory")
    parser.add_argument("--alone", choices=ALONE, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if options.alone:
        work = ALONE[options.alone]()
        before = peak()
        work()
        print(f"{before} {peak()}")
        return
    reading, writing = operations()
    print(
        f"operations: {reading / 1e9:.1f} G to read a picture, {writing / 1e9:.1f} G to write a reply; alone they give:"
    )
    compared = ways()
    for name, ratio in zip(compared, expected(), strict=True):
        print(f"  {name}: {ratio:.2f}")
    pairs = 1 if options.quick else options.pairs
    print(f"torch {torch.__version__}, one thread; median (range) of {pairs} pairs", flush=True)
    print("| compared | operations | measured |\n|---|---|---|", flush=True)
    for (name, (first, second)), ratio in zip(compared.items(), expected(), strict=True):
        for work in (first, second):
            work()
        found = [(seconds(first), seconds(second)) for _ in range(pairs)]
        ratios = [a / b for a, b in found]
        slow, quick = (statistics.median(column) for column in zip(*found, strict=True))
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        print(f"| {name} | {ratio:.2f} | {spread}, {slow:.2f} / {quick:.2f} s |", flush=True)
    if not options.quick:
        print("| alone in a process | MiB before | MiB at most |\n|---|---|---|", flush=True)
        for name in ALONE:
            child = [sys.executable, __file__, "--alone", name]
            run = subprocess.run(child, capture_output=True, text=True, check=True)
            before, most = map(float, run.stdout.split()[-2:])
            print(f"| {name} | {before:,.0f} | {most:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
