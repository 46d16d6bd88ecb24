"""Rebuild the backbone from nothing: it learns to see and describe scenes, and is never shown a rating.

    python -m pretrain_backbone -o DIR [--looking N] [--counting N] [--describing N]

Three lessons: the eyes alone learn what is where (`eyes`); then the whole model writes thirteen facts as two-digit
numbers, dense, so that words begin with something to say; then half of every batch is four sentences in the embedded
critic's words, without mood or verdict. Stopped and given again, it goes on from the last save.
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

from aesr1.aescot.phrases import PLACE, PictureFacts, write_critique, write_description
from aesr1.errors import AesError
from aesr1.outputs import require_same_settings
from aesr1.tiny.scenes import Scene, facts
from backbone_scenes import Pool, draw_pool
from backbone_vision import EyeTest, facts_srcc, open_eyes
from tiny_model import build_model, build_processor, save_half

FACTS_PROMPT = "Write the facts of this picture as numbers."
DESCRIBE_PROMPT = "Describe this picture."


@dataclass(frozen=True)
class PretrainConfig:
    """How long each lesson lasts, in steps. `pictures` are drawn once and met several times."""

    pictures: int = 30_000
    held_out: int = 512
    batch: int = 64  # pictures a step; half of it in the counting lesson
    looking: int = 1_200
    counting: int = 500
    describing: int = 800
    learning_rate: float = 1.5e-3
    warmup: int = 100
    seed: int = 0
    every: int = 200  # steps between validations and saves


def scene_findings(scene: Scene) -> PictureFacts:
    """What a person would say of a scene: its properties in named steps."""

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
    """Texts in every word the embedded critic knows, for the tokenizer."""
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
        asked, said = tokenizer(question)["input_ids"], tokenizer(answer)["input_ids"]
        said.append(tokenizer.eos_token_id)
        rows.append(asked + said)
        labels.append([-100] * len(asked) + said)
    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    return {
        "input_ids": ids,
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        "mm_token_type_ids": (ids == image).int(),
        "labels": torch.tensor([row + [-100] * (longest - len(row)) for row in labels]),
    }


@torch.no_grad()
def facts_known(model: Any, processor: Any, pool: Pool, chosen: NDArray[np.int64]) -> dict[str, float]:
    """SRCC of each fact, read as the expectation over its two digit tokens, over scenes of the pool."""
    digits = processor.tokenizer.convert_tokens_to_ids(list("0123456789"))
    read = []
    for part in np.array_split(chosen, max(1, len(chosen) // 64)):
        batch = encode(processor, [(FACTS_PROMPT, facts_text(pool.scenes[i])) for i in part], pool.grids[part])
        labels = batch.pop("labels")
        logits = model(**batch, pixel_values=pool.pixels(part), image_grid_thw=pool.grids[part]).logits
        said = (labels[:, 1:] != -100).nonzero()[:, 1].reshape(len(labels), -1)[:, :-1]  # all but the end token
        likely = logits[torch.arange(len(labels))[:, None], said][..., digits].float().softmax(-1)
        value = (likely * torch.arange(10)).sum(-1).reshape(len(labels), -1, 2)
        read.append((value[..., 0] * 10 + value[..., 1]).numpy())
    return facts_srcc(np.concatenate(read), pool, chosen)


@dataclass(frozen=True)
class Lesson:
    """One lesson: a loss of some pictures of the pool, and what is known after it."""

    name: str
    steps: int
    batch: int
    loss: Callable[[NDArray[np.int64], np.random.Generator], Any]
    known: Callable[[NDArray[np.int64]], dict[str, float]]


def teach(lesson: Lesson, module: torch.nn.Module, config: PretrainConfig, output: Path) -> None:
    """Give one lesson, from where it was stopped. It warms up and falls along a cosine of its own.

    Under one cosine for all, the words met a rate that had fallen to a tenth, and stayed babble.
    """

    def pace(step: int) -> float:
        return min((step + 1) / config.warmup, 0.5 + 0.5 * math.cos(math.pi * step / lesson.steps))

    rng = np.random.default_rng([config.seed, *lesson.name.encode()])
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, pace)
    notes, begun, losses, state = output / f"{lesson.name}.pt", time.time(), list[float](), {"step": 0}
    parts: dict[str, Any] = {"module": module, "optimizer": optimizer, "schedule": schedule}
    if notes.exists():
        state = torch.load(notes, weights_only=True)
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
            spent = f"{time.time() - begun:.0f} s"
            print(f"{lesson.name} {step} loss {np.mean(losses[-25:]):.4f} {spent}", file=sys.stderr, flush=True)
        if step % config.every == 0 or step == lesson.steps:
            module.eval()
            known = lesson.known(held_out)
            module.train()
            row = {
                "lesson": lesson.name,
                "step": step,
                "loss": round(float(np.mean(losses[-config.every :])), 4),
                "seconds": round(time.time() - begun),
                "srcc": known,
            }
            with (output / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            states = {name: part.state_dict() for name, part in parts.items()}
            torch.save({"step": step, "rng": rng.bit_generator.state, **states}, notes.with_suffix(".new"))
            notes.with_suffix(".new").replace(notes)


def pretrain(config: PretrainConfig, output: Path) -> None:
    """Train the backbone into `output` (processor, weights in float16, log.jsonl); goes on where it was stopped."""
    if (output / "config.json").exists():
        raise AesError(f"{output} exists", fix="choose another output folder; nothing is overwritten")
    require_same_settings(output, config)
    words = np.random.default_rng(config.seed)
    processor = build_processor(corpus(words), prompts=(FACTS_PROMPT, DESCRIBE_PROMPT))
    model = build_model(processor, seed=config.seed)
    model.set_attn_implementation("eager")  # on a CPU and at this size twice as fast as sdpa under autocast
    pool = draw_pool(processor, config.pictures + config.held_out)
    open_eyes(model, pool.patches[:2_000])

    def answer(chosen: NDArray[np.int64], texts: list[tuple[str, str]]) -> Any:
        batch, pixels = encode(processor, texts, pool.grids[chosen]), pool.pixels(chosen)
        with torch.autocast("cpu", torch.bfloat16):
            return model(**batch, pixel_values=pixels, image_grid_thw=pool.grids[chosen]).loss

    def write_facts(chosen: NDArray[np.int64], _: np.random.Generator) -> Any:
        return answer(chosen, [(FACTS_PROMPT, facts_text(pool.scenes[i])) for i in chosen])

    def write_both(chosen: NDArray[np.int64], rng: np.random.Generator) -> Any:
        lessons = [
            (FACTS_PROMPT, facts_text(pool.scenes[i]))
            if n % 2
            else (DESCRIBE_PROMPT, " ".join(write_description(scene_findings(pool.scenes[i]), rng)))
            for n, i in enumerate(chosen)
        ]
        return answer(chosen, lessons)

    def known(chosen: NDArray[np.int64]) -> dict[str, float]:
        return facts_known(model, processor, pool, chosen)

    eyes = EyeTest(model.model.visual, pool)
    looking = Lesson("looking", config.looking, config.batch, lambda chosen, _: eyes.loss(chosen), eyes.known)
    teach(looking, eyes, config, output)
    eyes.tower.requires_grad_(False)  # words still at random would unlearn it: after 400 steps tilt was at .18, not .92
    teach(Lesson("counting", config.counting, config.batch // 2, write_facts, known), model, config, output)
    teach(Lesson("describing", config.describing, config.batch, write_both, known), model, config, output)
    save_half(model, processor, output, stage="pretrain")
    for notes in output.glob("*.pt"):
        notes.unlink()


def main() -> None:
    """Command line: `python -m pretrain_backbone -o DIR`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    for name in ("looking", "counting", "describing", "pictures", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(PretrainConfig, name))
    settings = vars(parser.parse_args())
    output = settings.pop("output")
    pretrain(PretrainConfig(**settings), output)


if __name__ == "__main__":
    main()
