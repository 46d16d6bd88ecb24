"""Training steps that read the picture once, compared with TRL's own way: time and memory, in one run, same weights.

    python bench/read_once.py [-o FILE] [--pairs 5] [--part main|growth] [--quick]

A Qwen2.5-VL of 19 M parameters whose vision tower has the same share of the work as that of 3B; pictures of 512 × 512
(324 tokens), the paper's prompt, replies of 200 tokens, float32, two images a step. The two ways alternate. Printed are
the ratio of the times of each pair (median and range), the ratio of operations, the memory that a step keeps for its
backward pass, and the largest growth of a process that does one whole step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path += [str(Path(__file__).resolve().parents[1] / name) for name in ("src", "scripts")]  # an installed aesr1 first

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from trl import GRPOConfig
from trl.trainer import grpo_trainer

from aesr1.contract import PROMPT
from aesr1.outputs import write_json
from aesr1.rapo.settings import PAPER
from aesr1.rapo.trainer import RapoTrainer
from gpu_shape import SHAPES, Batch, Shape, Text, Vision, build, language_part, processor_for, vision_part

SHAPE = Shape(
    Text(384, 8, 6, 2, 1152, 1024, True),
    Vision(8, 160, 4, 432, (3, 7)),
)
IMAGES = 2
PROMPT_LENGTH = 418  # tokens, 324 of them for the picture; the published tokenizer needs fewer for the words


class Setting(NamedTuple):
    """The sizes that are varied."""

    replies: int = 8
    side: int = 512  # pixels
    length: int = 200  # tokens of a reply


def lot(completions: list[Any], **_: Any) -> list[float]:
    """A random reward."""
    return list(map(float, torch.rand(len(completions))))


def trainer_of(setting: Setting, folder: Path) -> RapoTrainer:
    """The real trainer; every reply has exactly `length` tokens."""
    processor = processor_for(setting.side**2)
    model = build(SHAPE, processor, dtype=torch.float32, device="cpu").train()
    grpo_trainer.create_model_from_path = lambda *_, **__: build(SHAPE, processor, dtype=torch.float32, device="cpu")
    settings = {
        **PAPER,
        "output_dir": str(folder),
        "per_device_train_batch_size": IMAGES * setting.replies,
        "num_generations": setting.replies,
        "max_completion_length": setting.length,
        "generation_kwargs": {"min_new_tokens": setting.length},
        "gradient_checkpointing": False,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
    }
    trainer = RapoTrainer(
        model=model,
        reward_funcs=[lot],
        args=GRPOConfig(**settings),
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": PROMPT}]}] * 8),
        processing_class=processor,
    )
    trainer.current_gradient_accumulation_steps = 1  # what `train` sets
    return trainer


def rows_of(setting: Setting) -> list[dict[str, Any]]:
    """A generation batch: noise pictures with the prompt, one row for each reply."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (setting.side, setting.side, 3), dtype=np.uint8) for _ in range(IMAGES)]
    prompt = [{"role": "user", "content": PROMPT}]
    return [{"prompt": prompt, "image": Image.fromarray(n)} for n in noise for _ in range(setting.replies)]


def train_on(trainer: RapoTrainer, batch: dict[str, Any]) -> None:
    """Log-probabilities, loss, backward pass."""
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, {**batch}).backward()


def step(trainer: RapoTrainer, rows: list[dict[str, Any]]) -> None:
    """A whole step: rollout, reference, rewards, log-probabilities, backward pass, optimizer."""
    train_on(trainer, trainer._prepare_inputs(rows))
    trainer.optimizer.step()


def seconds(trainer: RapoTrainer, work: Callable[[], None], *, once: bool) -> float:
    """Seconds in one of the two ways."""
    trainer.read_once, trainer._agrees, trainer._buffered_inputs = once, True, None
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def paired(trainer: RapoTrainer, work: Callable[[], None], pairs: int) -> dict[str, Any]:
    """Times and ratios of TRL's way and ours in alternation, after a warm-up of each."""
    for once in (False, True):
        seconds(trainer, work, once=once)
    found = [(seconds(trainer, work, once=False), seconds(trainer, work, once=True)) for _ in range(pairs)]
    ratios = [plain / once for plain, once in found]
    return {"plain": [a for a, _ in found], "once": [b for _, b in found], "ratios": ratios}


def kept(trainer: RapoTrainer, batch: dict[str, Any], *, once: bool) -> float:
    """MiB that the forward pass keeps for the backward pass, without weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in trainer.model.parameters()}
    storages: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    trainer.read_once, trainer._agrees = once, True
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = trainer.compute_loss(trainer.model, {**batch})
    del loss
    return sum(storages.values()) / 2**20


def expected(setting: Setting, prompt: int, shape: Shape = SHAPE) -> float:
    """Ratio of the forward operations of tower, decoder and head; a backward pass is twice as many in both ways.

    Attention masks what it computes.
    """
    k, side, length = setting.replies, setting.side // 28 * 2, setting.length

    def tower(pictures: int) -> float:
        return vision_part(shape, Batch(pictures, 0, 0, side)).forward

    def decoder(rows: int, queries: int, keys: int) -> float:
        part = language_part(shape, Batch(rows, queries, 0, side))
        return part.weights + 2 * part.attention * keys / queries

    head = 2.0 * k * length * shape.text.hidden_size * shape.text.vocab_size
    plain = tower(k) + decoder(k, prompt + length, prompt + length) + head
    once = tower(1) + decoder(1, prompt - 1, prompt - 1) + decoder(k, length + 1, prompt + length) + head
    return plain / once


def peak() -> float:
    """Peak memory of this process in MiB. Not from getrusage, which starts with the peak of the parent process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def alone(setting: Setting, *, once: bool) -> float:
    """Largest growth of this process in one whole step, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(setting, Path(folder))
        trainer.create_optimizer()
        rows, before = rows_of(setting), peak()
        seconds(trainer, lambda: step(trainer, rows), once=once)
    return peak() - before


def child(setting: Setting, *more: str) -> Any:
    """The output of this script for one setting in a separate process, because each fragments gigabytes of memory."""
    numbers = [str(value) for value in setting]
    run = subprocess.run(
        [sys.executable, __file__, "--setting", *numbers, *more], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(run.stdout.splitlines()[-1])


def measure(setting: Setting, pairs: int, *, whole: bool) -> dict[str, Any]:
    """The figures of one setting, except those of `alone`."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(setting, Path(folder))
        trainer.create_optimizer()
        rows = rows_of(setting)
        torch.manual_seed(0)
        batch = trainer._generate_and_score_completions(rows)
        if not trainer._agrees:
            raise SystemExit("the two ways do not agree")
        prompt = batch["prompt_ids"].shape[1]
        found = {"setting": setting._asdict(), "prompt": prompt, "expected": expected(setting, prompt)}
        found["training"] = paired(trainer, lambda: train_on(trainer, batch), pairs)
        found["kept_mib"] = [kept(trainer, batch, once=once) for once in (False, True)]
        if whole:
            found["step"] = paired(trainer, lambda: step(trainer, rows), pairs)
    return found


def line(found: dict[str, Any]) -> str:
    """A row of the table."""

    def ratio(part: dict[str, Any] | None) -> str:
        if part is None:
            return "–"
        values = part["ratios"]
        times = f"{statistics.median(part['plain']):.2f} → {statistics.median(part['once']):.2f} s"
        return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f}), {times}"

    def mib(name: str) -> str:
        return " → ".join(f"{value:,.0f}" for value in found[name]) + " MiB" if name in found else "–"

    setting = found["setting"]
    name = f"K = {setting['replies']}, {setting['side']}², {setting['length']} tokens"
    times = f"{found['expected']:.2f} | {ratio(found['training'])} | {ratio(found.get('step'))}"
    return f"| {name} | {times} | {mib('kept_mib')} | {mib('grown_mib')} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("read_once.json"))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--part", choices=["main", "growth"], help="K = 4 and 8, or what grows; default: both")
    parser.add_argument("--quick", action="store_true", help="one pair of the main settings")
    parser.add_argument("--setting", type=int, nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--alone", choices=["plain", "once"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    pairs = 1 if options.quick else options.pairs
    if options.setting:
        setting = Setting(*options.setting)
        once, whole = options.alone == "once", options.whole
        print(json.dumps(alone(setting, once=once) if options.alone else measure(setting, pairs, whole=whole)))
        return
    print("operations alone, 512², by reply length:")
    for name in ("3b", "7b"):
        for replies in (4, 8):
            ratios = {n: expected(Setting(replies, length=n), PROMPT_LENGTH, SHAPES[name]) for n in (200, 400, 1024)}
            print(f"  {name}, K = {replies}: " + ", ".join(f"{ratio:.2f} ({n})" for n, ratio in ratios.items()))
    main_settings = [Setting(4), Setting(8)]
    growth = [Setting(2), Setting(12), Setting(side=256), Setting(side=768), Setting(length=50), Setting(length=400)]
    settings = {"main": main_settings, "growth": growth, None: main_settings + growth}[options.part]
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} threads; TRL's way / ours, median (range) of {pairs} pairs")
    print("| setting | operations | log-probs + backward | whole step | kept for the backward pass | a step's growth |")
    print("|---|---|---|---|---|---|", flush=True)
    results = []
    for setting in main_settings if options.quick else settings:
        whole = setting in main_settings
        results.append(child(setting, "--pairs", str(pairs), *(["--whole"] if whole else [])))
        if whole:
            results[-1]["grown_mib"] = [child(setting, "--alone", way) for way in ("plain", "once")]
        write_json(options.output, results)
        print(line(results[-1]), flush=True)


if __name__ == "__main__":
    main()
