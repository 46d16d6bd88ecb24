"""Rebuild the backbone from nothing: it learns to see and describe scenes, and is never shown a rating.

    python -m aesr1.tiny.pretrain -o DIR [--seeing N] [--describing N]

See first: thirteen facts as two-digit numbers, dense, so that the eyes learn fast. Then half of every batch is
four sentences in the embedded critic's words, without mood or verdict.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from aesr1.aescot.phrases import PLACE, Findings, describe, judge
from aesr1.errors import AesError
from aesr1.tiny.model import build_model, build_processor
from aesr1.tiny.scenes import FACTS, Scene, draw_scene, facts, sample_scene
from aesr1.vlm import stamp_checkpoint

FACTS_PROMPT = "Write the facts of this picture as numbers."
DESCRIBE_PROMPT = "Describe this picture."


@dataclass(frozen=True)
class PretrainConfig:
    """How long each lesson lasts; the committed backbone was made in pieces (docs/log.md).

    `pictures` are drawn once and met several times.
    """

    pictures: int = 30_000
    held_out: int = 512
    seeing: int = 1_500  # steps of facts alone, of `seeing_batch` pictures
    describing: int = 700  # then steps of facts and descriptions, of twice as many pictures
    seeing_batch: int = 32
    learning_rate: float = 1.5e-3
    warmup: int = 100
    seed: int = 0
    every: int = 300  # steps between validations and saves


def scene_findings(scene: Scene) -> Findings:
    """What a person would say of a scene: its properties in named steps."""

    def step(value: float, *bounds: float) -> int:
        return sum(value > bound for bound in bounds)

    place = "left" if scene.x < 0.43 else "middle" if scene.x < 0.57 else "right"
    warm = min(scene.hue, 1 - scene.hue) < 0.17
    return Findings(
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
        judge(
            Findings(
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


def _draw(image_processor: Any, seed: int) -> tuple[Scene, Any, Any]:
    scene = sample_scene(np.random.default_rng([17, seed]))
    view = image_processor(draw_scene(scene), return_tensors="np")
    return scene, view["pixel_values"].astype(np.float16), view["image_grid_thw"]


def draw_pool(processor: Any, count: int, *, first: int) -> tuple[list[Scene], list[torch.Tensor], torch.Tensor]:
    """Scenes, their patches (float16, one tensor each) and grids (n, 3)."""
    scenes, patches, grids = [], [], []
    with ProcessPoolExecutor() as workers:
        drawn = workers.map(partial(_draw, processor.image_processor), range(first, first + count), chunksize=64)
        for scene, pixels, grid in drawn:
            scenes.append(scene)
            patches.append(torch.from_numpy(pixels))
            grids.append(torch.from_numpy(grid))
    return scenes, patches, torch.cat(grids)


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
def open_eyes(model: Any, patches: list[torch.Tensor]) -> None:
    """Begin the vision tower as a simple eye instead of at random: contrast first, then its energy.

    The patch embedding begins as principal components of the patches scaled to equal strength: a patch's brightness
    is a hundred times stronger than its grain or the sharpness of its edges, and the first norm divides by it. Kept
    are the strongest and the weakest components; the weakest are colour differences from pixel to pixel, which only
    grain has. The first block's MLP begins as the square of each component, so that the mean over patches shows how
    much of it there is; the mean of the component itself is nothing.
    """
    pixels = torch.cat(patches).float()
    strength, components = torch.linalg.eigh(pixels.T @ pixels / len(pixels))  # rising
    embedding, block = model.model.visual.patch_embed.proj.weight, model.model.visual.blocks[0].mlp
    width = len(embedding)
    kept = torch.cat([torch.arange(width // 4), torch.arange(len(strength) - width * 3 // 4, len(strength))])
    scaled = components[:, kept] / strength[kept].clamp(min=1e-4).sqrt()
    embedding.copy_(0.3 * scaled.T.reshape(embedding.shape))
    signs = torch.cat([torch.eye(width), -torch.eye(width)])  # silu(z)·z is z² on one side only
    block.gate_proj.weight[: 2 * width] = 2 * signs
    block.up_proj.weight[: 2 * width] = 2 * signs
    block.down_proj.weight[:, : 2 * width] = 0.05 * signs.abs().T


@torch.no_grad()
def facts_known(
    model: Any, processor: Any, scenes: list[Scene], patches: list[torch.Tensor], grids: torch.Tensor
) -> dict[str, float]:
    """SRCC of each fact, read as the expectation over its two digit tokens, over held-out scenes."""
    digits = processor.tokenizer.convert_tokens_to_ids(list("0123456789"))
    read, true = [], []
    for start in range(0, len(scenes), 64):
        part = slice(start, start + 64)
        batch = encode(processor, [(FACTS_PROMPT, facts_text(scene)) for scene in scenes[part]], grids[part])
        labels = batch.pop("labels")
        logits = model(**batch, pixel_values=torch.cat(patches[part]).float(), image_grid_thw=grids[part]).logits
        said = (labels[:, 1:] != -100).nonzero()[:, 1].reshape(len(labels), -1)[:, :-1]  # all but the end token
        chosen = logits[torch.arange(len(labels))[:, None], said][..., digits].float().softmax(-1)
        value = (chosen * torch.arange(10)).sum(-1).reshape(len(labels), -1, 2)
        read.append((value[..., 0] * 10 + value[..., 1]).numpy())
        true.append(np.array([list(facts(scene).values()) for scene in scenes[part]]))
    guess, truth = np.concatenate(read), np.concatenate(true)
    return {name: round(float(spearmanr(guess[:, i], truth[:, i])[0]), 3) for i, (name, *_) in enumerate(FACTS)}


def learning_pace(config: PretrainConfig, step: int) -> float:
    """Share of the learning rate: each lesson warms up and falls along a cosine of its own.

    Under one cosine for both the words met a rate that had fallen to a tenth, and stayed babble.
    """
    seeing = step < config.seeing
    done, length = (step, config.seeing) if seeing else (step - config.seeing, config.describing)
    return min((done + 1) / config.warmup, 0.5 + 0.5 * math.cos(math.pi * done / max(1, length)))


def pretrain(config: PretrainConfig, output: Path) -> None:
    """Train the backbone into `output` (processor, weights in float16, log.jsonl). Saves as it goes."""
    if (output / "config.json").exists():
        raise AesError(f"{output} exists", fix="choose another output folder; nothing is overwritten")
    output.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(config.seed)
    processor = build_processor(corpus(rng), prompts=(FACTS_PROMPT, DESCRIBE_PROMPT))
    model = build_model(processor, seed=config.seed)
    model.set_attn_implementation("eager")  # on a CPU and at this size twice as fast as sdpa under autocast
    scenes, patches, grids = draw_pool(processor, config.pictures + config.held_out, first=0)
    open_eyes(model, patches[:2_000])
    kept, steps = config.pictures, config.seeing + config.describing
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_pace(config, step))
    begun, losses = time.time(), []
    for step in range(1, steps + 1):
        seeing = step <= config.seeing
        chosen = rng.integers(kept, size=config.seeing_batch * (1 if seeing else 2))
        lessons = [
            (FACTS_PROMPT, facts_text(scenes[i]))
            if seeing or n % 2
            else (DESCRIBE_PROMPT, " ".join(describe(scene_findings(scenes[i]), rng)))
            for n, i in enumerate(chosen)
        ]
        batch = encode(processor, lessons, grids[chosen])
        pixels = torch.cat([patches[i] for i in chosen]).float()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch, pixel_values=pixels, image_grid_thw=grids[chosen]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 25 == 0:
            print(
                f"step {step} loss {np.mean(losses[-25:]):.4f} {time.time() - begun:.0f} s", file=sys.stderr, flush=True
            )
        if step % config.every == 0 or step == steps:
            model.eval()
            known = facts_known(model, processor, scenes[kept:], patches[kept:], grids[kept:])
            model.train()
            row = {
                "step": step,
                "loss": round(float(np.mean(losses[-config.every :])), 4),
                "seconds": round(time.time() - begun),
                "srcc": known,
            }
            with (output / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            save(model, processor, output)


def save(model: Any, processor: Any, output: Path) -> None:
    """Write processor and weights; half precision on disk halves the package, and loading returns to float32."""
    half = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    model.config.dtype = torch.float16
    model.save_pretrained(output, state_dict=half)
    processor.save_pretrained(output)
    stamp_checkpoint(output, stage="pretrain")


def main() -> None:
    """Command line: `python -m aesr1.tiny.pretrain -o DIR`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seeing", type=int, default=PretrainConfig.seeing)
    parser.add_argument("--describing", type=int, default=PretrainConfig.describing)
    parser.add_argument("--pictures", type=int, default=PretrainConfig.pictures)
    arguments = parser.parse_args()
    config = PretrainConfig(seeing=arguments.seeing, describing=arguments.describing, pictures=arguments.pictures)
    pretrain(config, arguments.output)


if __name__ == "__main__":
    main()
