"""Trains the photo backbone to describe photographs in the words of the embedded critic. It never uses a rating.

    python scripts/pretrain_photo_backbone.py RATINGS -o DIR [--steps N] [--split train]

RATINGS gives the pictures; their scores are not read. The tower is frozen and sees each picture once. At every step
each picture gets a new wording.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aesr1.aescot.measured_facts import measure_facts
from aesr1.aescot.phrases import PictureFacts, write_critique, write_description
from aesr1.errors import AesError
from aesr1.images.load import open_image
from aesr1.outputs import require_same_settings
from aesr1.records import Rating, ratings_of_split, read_rows
from aesr1.worker_processes import worker_pool
from photo_model import build_model, build_processor
from photo_tower import build_tower, package_weights
from tiny_model import save_half

DESCRIBE_PROMPT = "Describe this photograph."


@dataclass(frozen=True)
class PretrainConfig:
    """One lesson."""

    steps: int = 500
    batch: int = 32
    learning_rate: float = 1.5e-3
    warmup: int = 50
    dropout: float = 0.3  # share of the picture's features
    seed: int = 0


def see(image: str) -> tuple[PictureFacts, Any]:
    """The facts of a picture, and its pixels as the model gets them."""
    picture = open_image(image)
    return measure_facts(picture, domain="photographs"), picture


def corpus(facts: list[PictureFacts], rng: np.random.Generator, *, size: int = 4_000) -> list[str]:
    """Critiques of these pictures for all scores, to train the tokenizer."""
    return [write_critique(facts[int(rng.integers(len(facts)))], float(rng.random()), rng) for _ in range(size)]


@torch.no_grad()
def features_of(model: Any, processor: Any, pictures: list[Any], *, batch: int = 8) -> torch.Tensor:
    """(n, channels, 9, 9) float16 of the tower."""
    seen = []
    for start in range(0, len(pictures), batch):
        pixels = processor.image_processor(pictures[start : start + batch], return_tensors="pt")["pixel_values"]
        seen.append(model.model.vision_tower(pixels).last_hidden_state.half())
    return torch.cat(seen)


def encode(processor: Any, prompt: str, answers: list[str]) -> dict[str, torch.Tensor]:
    """Right-padded token batch of one prompt and several answers; labels are −100 outside the answers."""
    tokenizer = processor.tokenizer
    question = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}],
        add_generation_prompt=True,
        tokenize=False,
    ).replace("<image>", "<image>" * 81)
    start = tokenizer(question)["input_ids"]
    ends = [[*tokenizer(answer)["input_ids"], tokenizer.eos_token_id] for answer in answers]
    longest = max(map(len, ends))

    def padded(rows: list[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([row + [value] * (len(start) + longest - len(row)) for row in rows])

    return {
        "input_ids": padded([start + end for end in ends], tokenizer.pad_token_id),
        "attention_mask": padded([[1] * len(start + end) for end in ends], 0),
        "labels": padded([[-100] * len(start) + end for end in ends], -100),
    }


def pretrain(ratings: list[Rating], config: PretrainConfig, output: Path) -> None:
    """Write the backbone to `output` (processor, float16 weights, log.jsonl)."""
    if (output / "config.json").exists():
        raise AesError(f"{output} exists", fix="choose another output folder; nothing is overwritten")
    require_same_settings(output, config)
    with worker_pool() as workers:
        facts, pictures = map(list, zip(*workers.map(see, [row.image for row in ratings], chunksize=8), strict=True))
    rng = np.random.default_rng(config.seed)
    processor = build_processor(corpus(facts, rng), prompts=(DESCRIBE_PROMPT,))
    model = build_model(processor, build_tower(package_weights()), seed=config.seed)
    model.model.vision_tower.requires_grad_(False)
    features = features_of(model.eval(), processor, pictures)
    tower, chosen = model.model.vision_tower, np.arange(0)
    kept = tower.forward
    output_class = type(tower(torch.zeros(1, 3, 260, 260)))
    tower.forward = lambda *_, **__: output_class(last_hidden_state=drop(features[chosen].float()))
    drop = partial(torch.nn.functional.dropout, p=config.dropout)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / config.warmup, 0.5 + 0.5 * math.cos(math.pi * step / config.steps)),
    )
    started, losses = time.time(), []
    for step in range(1, config.steps + 1):
        chosen = rng.integers(len(ratings), size=config.batch)
        texts = [" ".join(write_description(facts[i], rng)) for i in chosen]
        inputs = encode(processor, DESCRIBE_PROMPT, texts)
        loss = model(**inputs, pixel_values=torch.zeros(1)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 25 == 0:
            row = {"step": step, "loss": round(float(np.mean(losses[-25:])), 4), "seconds": round(time.time() - started)}
            print(json.dumps(row), file=sys.stderr, flush=True)
            with (output / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
    tower.forward = kept
    save_half(model, processor, output, stage="pretrain")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratings", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--steps", type=int, default=PretrainConfig.steps)
    parser.add_argument("--seed", type=int, default=PretrainConfig.seed)
    given = parser.parse_args()
    rows = ratings_of_split(read_rows(given.ratings, Rating), given.split, where=given.ratings)
    pretrain(rows, PretrainConfig(steps=given.steps, seed=given.seed), given.output)


if __name__ == "__main__":
    main()
