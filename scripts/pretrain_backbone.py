"""Trains the embedded backbone from random weights to see and describe scenes. It never uses a rating.

    python scripts/pretrain_backbone.py -o DIR [--looking N] [--counting N] [--describing N]

Three lessons. Looking: the vision tower learns the content of each image cell (`backbone_vision`). Counting: the whole
model writes thirteen facts as two-digit numbers. Describing: half of every batch is four sentences in the words of the
embedded critic, without mood or verdict. The same command continues a stopped run from its last save.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aesr1.aescot.phrases import PLACE, write_critique, write_description
from aesr1.errors import AesError
from aesr1.facts.measured_facts import PictureFacts
from aesr1.outputs import require_same_settings
from aesr1.tiny.scenes import Scene, facts
from backbone_scenes import Pool, draw_pool
from backbone_vision import VisionTask, facts_srcc, initialise_vision
from tiny_model import build_model, build_processor, save_half

FACTS_PROMPT = "Write the facts of this picture as numbers."
DESCRIBE_PROMPT = "Describe this picture."


@dataclass(frozen=True)
class PretrainConfig:
    """The steps of each lesson. `pictures` are drawn once and used several times."""

    pictures: int = 30_000
    held_out: int = 512
    batch: int = 64  # pictures in one step; half as many in the counting lesson
    looking: int = 1_200
    counting: int = 500
    describing: int = 800
    learning_rate: float = 1.5e-3
    warmup: int = 100
    seed: int = 0
    every: int = 200  # steps between evaluations and saves


def scene_facts(scene: Scene) -> PictureFacts:
    """The properties of a scene in the steps that a person would name."""

    def step(value: float, *bounds: float) -> int:
        return sum(value > bound for bound in bounds)

    place = "left" if scene.x < 0.43 else "middle" if scene.x < 0.57 else "right"
    warm = min(scene.hue, 1 - scene.hue) < 0.17
    return PictureFacts(
        place="edge" if abs(scene.x - 0.5) > 0.32 else place,
        tilt=step(abs(scene.tilt), 2.5, 7),
        clutter=step(scene.clutter, 0, 3),
        exposure=step(scene.exposure, -1.0, -0.35, 0.35, 1.0) - 2,
        contrast=step(scene.contrast, 0.6, 0.85),
        saturation=step(scene.saturation, 0.33, 0.75),
        clash=step(scene.clash, 0.25, 0.6),
        focus=step(scene.blur, 0.6, 1.7),
        grain=step(scene.noise, 0.02, 0.06),
        warmth="warm" if warm else "cool" if 0.4 < scene.hue < 0.75 else "neutral",
    )


def facts_text(scene: Scene) -> str:
    """Thirteen facts, two digits each, in the order of `FACTS`."""
    return "".join(f"{min(99, int(100 * value)):02d}" for value in facts(scene).values())


def corpus(rng: np.random.Generator, *, size: int = 4_000) -> list[str]:
    """Texts with every word of the embedded critic, to train the tokenizer."""
    places, warmths = list(PLACE), ("warm", "neutral", "cool")
    return [
        write_critique(
            PictureFacts(
                place=str(rng.choice(places)),
                exposure=int(rng.integers(-2, 3)),
                warmth=str(rng.choice(warmths)),
                **{
                    name: int(rng.integers(3))
                    for name in ("tilt", "clutter", "contrast", "saturation", "clash", "focus", "grain")
                },
            ),
            float(rng.random()),
            rng,
        )
        for _ in range(size)
    ]


def encode(processor: Any, texts: list[tuple[str, str]], grids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Right-padded token batch of (prompt, answer) pairs; labels are −100 outside the answers."""
    tokenizer = processor.tokenizer
    pad, image = tokenizer.pad_token_id, processor.image_token_id
    rows, labels = [], []
    for (prompt, answer), grid in zip(texts, grids, strict=True):
        question = processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}],
            add_generation_prompt=True,
            tokenize=False,
        ).replace(processor.image_token, processor.image_token * (int(grid.prod()) // 4))
        question_ids, answer_ids = tokenizer(question)["input_ids"], tokenizer(answer)["input_ids"]
        answer_ids.append(tokenizer.eos_token_id)
        rows.append(question_ids + answer_ids)
        labels.append([-100] * len(question_ids) + answer_ids)
    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    return {
        "input_ids": ids,
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        "mm_token_type_ids": (ids == image).int(),
        "labels": torch.tensor([row + [-100] * (longest - len(row)) for row in labels]),
    }


@torch.no_grad()
def facts_srcc_of_text(model: Any, processor: Any, pool: Pool, chosen: NDArray[np.int64]) -> dict[str, float]:
    """SRCC of each fact over scenes of the pool. A fact is the expectation over its two digit tokens."""
    digits = processor.tokenizer.convert_tokens_to_ids(list("0123456789"))
    predicted = []
    for part in np.array_split(chosen, max(1, len(chosen) // 64)):
        batch = encode(processor, [(FACTS_PROMPT, facts_text(pool.scenes[i])) for i in part], pool.grids[part])
        labels = batch.pop("labels")
        logits = model(**batch, pixel_values=pool.pixels(part), image_grid_thw=pool.grids[part]).logits
        places = (labels[:, 1:] != -100).nonzero()[:, 1].reshape(len(labels), -1)[:, :-1]  # without the end token
        probability = logits[torch.arange(len(labels))[:, None], places][..., digits].float().softmax(-1)
        value = (probability * torch.arange(10)).sum(-1).reshape(len(labels), -1, 2)
        predicted.append((value[..., 0] * 10 + value[..., 1]).numpy())
    return facts_srcc(np.concatenate(predicted), pool, chosen)


@dataclass(frozen=True)
class Lesson:
    """One lesson: its loss on some pictures of the pool, and its evaluation."""

    name: str
    steps: int
    batch: int
    loss: Callable[[NDArray[np.int64], np.random.Generator], Any]
    evaluate: Callable[[NDArray[np.int64]], dict[str, float]]  # SRCC of each fact


def train_lesson(lesson: Lesson, module: torch.nn.Module, config: PretrainConfig, output: Path) -> None:
    """Train one lesson, from its last save if there is one. The learning rate has warm-up and a cosine.

    Each lesson has its own cosine: with one for all, the rate of the text lessons was too low to learn words.
    """

    def rate(step: int) -> float:
        return min((step + 1) / config.warmup, 0.5 + 0.5 * math.cos(math.pi * step / lesson.steps))

    rng = np.random.default_rng([config.seed, *lesson.name.encode()])
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    save, start, losses, state = output / f"{lesson.name}.pt", time.time(), list[float](), {"step": 0}
    parts: dict[str, Any] = {"module": module, "optimizer": optimizer, "schedule": schedule}
    if save.exists():
        state = torch.load(save, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        rng.bit_generator.state = state["rng"]
    held_out = np.arange(config.pictures, config.pictures + config.held_out)
    for step in range(state["step"] + 1, lesson.steps + 1):
        loss = lesson.loss(rng.integers(config.pictures, size=lesson.batch), rng)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 25 == 0:
            elapsed = f"{time.time() - start:.0f} s"
            print(f"{lesson.name} {step} loss {np.mean(losses[-25:]):.4f} {elapsed}", file=sys.stderr, flush=True)
        if step % config.every == 0 or step == lesson.steps:
            module.eval()
            known = lesson.evaluate(held_out)
            module.train()
            row = {
                "lesson": lesson.name,
                "step": step,
                "loss": round(float(np.mean(losses[-config.every :])), 4),
                "seconds": round(time.time() - start),
                "srcc": known,
            }
            with (output / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            states = {name: part.state_dict() for name, part in parts.items()}
            torch.save({"step": step, "rng": rng.bit_generator.state, **states}, save.with_suffix(".new"))
            save.with_suffix(".new").replace(save)


def pretrain(config: PretrainConfig, output: Path) -> None:
    """Write the backbone to `output` (processor, float16 weights, log.jsonl). Continues a stopped run."""
    if (output / "config.json").exists():
        raise AesError(f"{output} exists", fix="choose another output folder; nothing is overwritten")
    require_same_settings(output, config)
    words = np.random.default_rng(config.seed)
    processor = build_processor(corpus(words), prompts=(FACTS_PROMPT, DESCRIBE_PROMPT))
    model = build_model(processor, seed=config.seed)
    model.set_attn_implementation("eager")  # on a CPU, at this size, twice as fast as sdpa with autocast
    pool = draw_pool(processor, config.pictures + config.held_out)
    initialise_vision(model, pool.patches[:2_000])

    def text_loss(chosen: NDArray[np.int64], texts: list[tuple[str, str]]) -> Any:
        batch, pixels = encode(processor, texts, pool.grids[chosen]), pool.pixels(chosen)
        with torch.autocast("cpu", torch.bfloat16):
            return model(**batch, pixel_values=pixels, image_grid_thw=pool.grids[chosen]).loss

    def facts_loss(chosen: NDArray[np.int64], _: np.random.Generator) -> Any:
        return text_loss(chosen, [(FACTS_PROMPT, facts_text(pool.scenes[i])) for i in chosen])

    def facts_and_description_loss(chosen: NDArray[np.int64], rng: np.random.Generator) -> Any:
        texts = [
            (FACTS_PROMPT, facts_text(pool.scenes[i]))
            if n % 2
            else (DESCRIBE_PROMPT, " ".join(write_description(scene_facts(pool.scenes[i]), rng)))
            for n, i in enumerate(chosen)
        ]
        return text_loss(chosen, texts)

    def evaluate(chosen: NDArray[np.int64]) -> dict[str, float]:
        return facts_srcc_of_text(model, processor, pool, chosen)

    vision = VisionTask(model.model.visual, pool)
    looking = Lesson("looking", config.looking, config.batch, lambda chosen, _: vision.loss(chosen), vision.srcc)
    train_lesson(looking, vision, config, output)
    # The text weights are still random and would spoil the tower: SRCC of tilt fell from .92 to .18 in 400 steps.
    vision.tower.requires_grad_(False)
    counting = Lesson("counting", config.counting, config.batch // 2, facts_loss, evaluate)
    train_lesson(counting, model, config, output)
    describing = Lesson("describing", config.describing, config.batch, facts_and_description_loss, evaluate)
    train_lesson(describing, model, config, output)
    save_half(model, processor, output, stage="pretrain")
    for save in output.glob("*.pt"):
        save.unlink()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    for name in ("looking", "counting", "describing", "pictures", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(PretrainConfig, name))
    settings = vars(parser.parse_args())
    output = settings.pop("output")
    pretrain(PretrainConfig(**settings), output)


if __name__ == "__main__":
    main()
