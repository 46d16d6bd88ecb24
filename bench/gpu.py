"""What a step of cold start and of RAPO costs on one GPU: time by phase, memory, tokens/s, TFLOP/s of what it can do.

    python bench/gpu.py [-o gpu.json] [--rows 3b-lora-k4,7b-lora-k4] [--budget 500] [--list] [--tiny]

The models have the dimensions of Qwen2.5-VL 3B and 7B with random weights, so nothing is downloaded; the trainers are
the project's own. Pictures are noise, and every reply is held to exactly --reply tokens by `min_new_tokens`, because
random weights seldom end one. A random reward stands beside the project's three: unreadable replies would all earn
nothing, and products with gradients of zero run faster than those of training. Rollout and optimizer end together, so
only the reference's log-probs are needed, no old ones. --tiny runs it all on a CPU.
"""

from __future__ import annotations

import argparse
import gc
import os
import shlex
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path += [str(Path(__file__).resolve().parents[1] / name) for name in ("src", "scripts")]  # an installed aesr1 first

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import PrinterCallback
from trl import GRPOConfig, SFTConfig
from trl.trainer import grpo_trainer

from aesr1 import cold_start
from aesr1.contract import MAX_PIXELS
from aesr1.outputs import write_json
from aesr1.rapo import train as rapo
from aesr1.rapo.reward_functions import RewardSettings, reward_functions
from aesr1.records import Rating
from aesr1.training.parameters import freeze_vision, lora_config
from aesr1.training.picture_dataset import picture_dataset
from gpu_clock import GIB, PHASES, Clock, TimedColdStart, TimedRapo, Watch, ceilings, elapsed, machine
from gpu_shape import SHAPES, Batch, build, forward_operations, processor_for, training_operations

STEPS, RANK, SEED = 3, 16, 0  # measured steps, after one of warm-up
LEAST = 40  # seconds: with fewer left a row is not begun


@dataclass(frozen=True)
class Row:
    """One setting. Images and micro-batch are of a step; replies 0 is the cold start."""

    name: str
    shape: str
    tuning: str  # lora: adapters alone; full: all weights, but in the cold start not the tower's
    replies: int
    dtype: str = "bfloat16"  # of the weights; trained in full in 16 bits they only show what would fit
    images: int = 4
    micro: int = 4

    @property
    def rank(self) -> int:
        """Of the adapters, on every linear layer of the language model; 0 for none."""
        return RANK if self.tuning == "lora" else 0

    @property
    def sequences(self) -> int:
        """Prompts with a reply in a step."""
        return self.images * max(1, self.replies)

    def describe(self) -> str:
        """The setting in words."""
        what = f"{self.images} images × {self.replies} replies" if self.replies else f"SFT, {self.images} images"
        tuning = f"LoRA r {RANK}" if self.rank else "full"
        return f"{tuning}, {self.dtype}, {what}, micro-batch {self.micro}, checkpointing"


ROWS = (
    Row("3b-lora-k4", "3b", "lora", 4),
    Row("3b-full-bf16-k4", "3b", "full", 4),
    Row("7b-lora-k4", "7b", "lora", 4),
    Row("3b-sft-lora", "3b", "lora", 0, images=8),
    Row("3b-sft-full", "3b", "full", 0, dtype="float32", images=8),
    Row("7b-sft-lora", "7b", "lora", 0, images=8),
    Row("7b-sft-full-bf16", "7b", "full", 0, images=8),
    Row("3b-lora-k8", "3b", "lora", 8),
    Row("3b-full-bf16-k8", "3b", "full", 8),
    Row("7b-lora-k8", "7b", "lora", 8),
    Row("3b-full-k4", "3b", "full", 4, dtype="float32"),
    Row("7b-full-bf16-k4", "7b", "full", 4),
)
TINY_ROWS = (
    Row("tiny-lora-k4", "tiny", "lora", 4, dtype="float32", images=2),
    Row("tiny-full-k8", "tiny", "full", 8, dtype="float32", images=2),
    Row("tiny-sft-lora", "tiny", "lora", 0, dtype="float32"),
    Row("tiny-sft-full", "tiny", "full", 0, dtype="float32"),
)


@dataclass(frozen=True)
class Scale:
    """How large it all is: pixels a side, tokens a reply, the ceiling's matrices and copies, the device."""

    pixels: int
    reply: int
    matrix: int
    copied: int  # bytes
    device: str


def samples(row: Row, scale: Scale, folder: Path) -> list[dict[str, Any]]:
    """Pictures of noise for every step, rated, or with a reply of digits, which are a token each."""
    rng = np.random.default_rng(SEED)
    ratings = []
    for number in range(row.images * (STEPS + 1)):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (scale.pixels, scale.pixels, 3), dtype=np.uint8)).save(path)
        ratings.append(Rating(str(path), float(rng.random()), "noise", "train"))
    if row.replies:
        return rapo._rows(ratings)
    digits = "".join(rng.choice(list("0123456789"), scale.reply - 2))  # the template ends a reply with two tokens
    completion = [{"role": "assistant", "content": digits}]
    return [{"image": rating.image, "completion": completion} for rating in ratings]


def lot(completions: list[Any], **_: Any) -> list[float]:
    """A random reward."""
    return list(map(float, torch.rand(len(completions), device="cpu")))


def trainer_of(row: Row, scale: Scale, folder: Path, watch: Watch) -> Any:
    """The stage's trainer, in the paper's settings where they bear on the cost."""
    processor = processor_for(min(MAX_PIXELS, scale.pixels**2))
    make = partial(build, SHAPES[row.shape], processor, device=scale.device)
    model = make(dtype=getattr(torch, row.dtype)).train()
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": row.micro,
        "gradient_accumulation_steps": row.sequences // row.micro,
        "gradient_checkpointing": True,
        "max_steps": STEPS + 1,
        "use_cpu": scale.device == "cpu",
        "bf16": scale.device == "cuda",
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": SEED,
    }
    common = {
        "model": model,
        "train_dataset": picture_dataset(samples(row, scale, folder), max_pixels=MAX_PIXELS),
        "processing_class": processor,
        "callbacks": [watch],
        "peft_config": lora_config(model, rank=row.rank, alpha=2 * RANK),
    }
    if row.rank or not row.replies:
        freeze_vision(model)
    if not row.replies:
        paper = {name: value for name, value in cold_start.PAPER.items() if name in SFTConfig.__dataclass_fields__}
        return TimedColdStart(args=SFTConfig(**{**paper, **settings}), **common)
    # The trainer loads its reference model from the model's folder, and this one has none.
    grpo_trainer.create_model_from_path = lambda _, dtype, **__: make(dtype=dtype)
    settings |= {
        "num_generations": row.replies,
        "max_completion_length": scale.reply,
        "generation_kwargs": {"min_new_tokens": scale.reply},
    }
    rewards = reward_functions(RewardSettings())
    return TimedRapo(args=GRPOConfig(**{**rapo.PAPER, **settings}), reward_funcs=[*rewards, lot], **common)


def measure(row: Row, scale: Scale, budget: float, ceiling: dict[str, float]) -> dict[str, Any]:
    """Train for a few steps; the row's figures, of each measured step and as medians."""
    clock = Clock(scale.device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(row, scale, Path(folder), Watch(clock, budget))
        trainer.clock = clock
        trainer.remove_callback(PrinterCallback)
        model = trainer.accelerator.unwrap_model(trainer.model)
        passed = []
        tower = next(module for name, module in model.named_modules() if name.endswith("visual.merger"))
        tower.register_forward_hook(
            lambda _, __, output: passed.append(output.requires_grad) if torch.is_grad_enabled() else None
        )
        trainer.train()
    shape = SHAPES[row.shape]
    batch = Batch(row.sequences, *trainer.lengths, side=scale.pixels // 28 * 2)
    trained = {"vision_trained": not row.rank and row.replies > 0, "vision_backward": any(passed)}
    operations = training_operations(shape, batch, rank=row.rank, **trained)
    steps = clock.steps[1:]
    median = {name: statistics.median(step[name] for step in steps) for name in (*PHASES, "step")}
    aside = ("visual",) if shape.text.tie_word_embeddings else ("visual", "embed_tokens")
    read = sum(  # bytes that a new token needs: all of the language model, of the input embeddings one row
        p.numel() * p.element_size() for name, p in model.named_parameters() if not set(aside) & set(name.split("."))
    )
    rate = sum(operations) / median["backward"] / 1e12
    figures: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "batch": batch._asdict(),
        **trained,
        "operations": operations._asdict(),
        "training_tflops": rate,
        "training_share_of_ceiling": rate / ceiling["matmul_tflops"],
        "median": median,
        "spread": [min(step["step"] for step in steps), max(step["step"] for step in steps)],
        "steps": steps,
        "warm_up": clock.steps[0],
    }
    if row.replies:
        reading = read * scale.reply / median["rollout"] / 1e9
        figures |= {
            "tokens_per_second": trainer.generated / median["rollout"],
            "generated": trainer.generated,
            "rollout_reads_gb_per_second": reading,
            "rollout_share_of_bandwidth": reading / ceiling["copy_gb_per_second"],
            "logprobs_tflops": forward_operations(shape, batch) / median["logprobs"] / 1e12,
        }
    return figures


def guarded(run: Callable[[], dict[str, Any]], device: str) -> dict[str, Any]:
    """A row's figures, or why there are none; its memory is free again afterwards."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    try:
        found = {"status": "measured", **run()}
    except Exception as error:  # one broken row must not cost the others
        full = isinstance(error, torch.OutOfMemoryError) or "ALLOC_FAILED" in str(error)
        first = next(iter(str(error).splitlines()), "").replace("|", "/")[:200]
        found = {"status": "out of memory" if full else f"failed: {type(error).__name__}: {first}"}
    found["seconds"] = time.perf_counter() - began
    gc.collect()
    if device == "cuda":
        found["peak_gib"] = torch.cuda.max_memory_allocated() / GIB
        found["left_gib"] = torch.cuda.memory_allocated() / GIB
        if found["status"] == "out of memory":
            found["status"] += f" at {found['peak_gib']:.1f} GiB"
    return found


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    ceiling, on = report["ceiling"], report["machine"]
    lines = [
        f"`{report['command']}`, seed {SEED}: {', '.join(f'{name} {value}' for name, value in on.items())}",
        "",
        f"Ceiling: {ceiling['matmul_tflops']:.3g} TFLOP/s (bf16 product), "
        f"{ceiling['copy_gb_per_second']:.0f} GB/s (copy). Replies of {report['reply']} tokens, pictures of "
        f"{report['pixels']} × {report['pixels']}; seconds are medians; TFLOP/s count checkpointing's second forward.",
        "",
        "| row | setting | step (range, n) | inputs | rollout | log-probs | backward | optimizer | rest | tokens/s | "
        "TFLOP/s (of ceiling) | peak GiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        head = f"| {row['name']} | {row['setting']} |"
        if row["status"] != "measured":
            lines.append(f"{head} {row['status']} |" + " |" * 9)
            continue
        seconds = " | ".join(f"{row['median'][name]:.2f}" for name in PHASES)
        low, high = row["spread"]
        rollout = f"{row['tokens_per_second']:.0f}" if "tokens_per_second" in row else "–"
        rate = f"{row['training_tflops']:.3g} ({row['training_share_of_ceiling']:.0%})"
        peak = f"{row['peak_gib']:.1f}" if "peak_gib" in row else "–"
        step = f"{row['median']['step']:.2f} ({low:.2f}–{high:.2f}, {len(row['steps'])})"
        lines.append(f"{head} {step} | {seconds} | {rollout} | {rate} | {peak} |")
    return "\n".join(lines)


def main() -> None:
    """Measure row after row while there is time, each kept in the file at once; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", type=Path, default=Path(os.environ.get("OUT", ".")) / "gpu.json", metavar="FILE")
    parser.add_argument("--rows", help="names, separated by commas; all by default")
    parser.add_argument("--budget", type=float, default=500.0, help="seconds; rows after them are skipped")
    parser.add_argument("--reply", type=int, help="tokens of every reply (200; with --tiny 8)")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--tiny", action="store_true", help="a miniature on the CPU, to try the script itself")
    arguments = parser.parse_args()
    known = {row.name: row for row in (TINY_ROWS if arguments.tiny else ROWS)}
    if arguments.list:
        print("\n".join(f"{row.name:16} {row.describe()}" for row in known.values()))
        return
    names = arguments.rows.split(",") if arguments.rows else list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown rows {', '.join(unknown)}; --list shows them")
    if not arguments.tiny and not torch.cuda.is_available():
        parser.error("no CUDA GPU is seen; --tiny tries the script on a CPU")
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    size = (112, 8, 256, 2**24, "cpu") if arguments.tiny else (512, 200, 8192, 2**32, "cuda")
    scale = Scale(size[0], arguments.reply or size[1], *size[2:])
    report: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": machine(scale.device),
        "seed": SEED,
        "reply": scale.reply,
        "pixels": scale.pixels,
        "ceiling": ceilings(scale.device, matrix=scale.matrix, copied=scale.copied),
        "rows": [],
    }
    write_json(arguments.o, report)
    for name in names:
        row, left = known[name], arguments.budget - elapsed()
        found: dict[str, Any] = {"status": f"skipped: {max(0.0, left):.0f} s of {arguments.budget:.0f} left"}
        if left > (0 if arguments.tiny else LEAST):
            found = guarded(partial(measure, row, scale, arguments.budget, report["ceiling"]), scale.device)
        report["rows"].append({**asdict(row), "setting": row.describe(), **found})
        write_json(arguments.o, report)
        print(f"{name}: {found['status']}, {elapsed():.0f} s", file=sys.stderr)
    print(table(report))


if __name__ == "__main__":
    main()
