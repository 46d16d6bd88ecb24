"""Trains the photo backbone to describe photographs in the words of the embedded critic. It never uses a rating.

    python scripts/pretrain_photo_backbone.py TABLE -o DIR [--steps N] [--split train]

TABLE is OASIS's ratings.csv; its columns image, split and category are read, and no mark. Tower and projector are
frozen; the tower sees each picture once. At every step each picture gets a new wording. Beside the backbone stand the
layers that name subjects: ImageNet's classes, of the tower's own package, and persons, by ridge regression on the
category.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention as Features

from aesr1.aescot.photo_phrases import criticise_photo, describe_photo
from aesr1.aescot.subjects import name_subject
from aesr1.errors import AesError
from aesr1.facts.measured_facts import PictureFacts, measure_facts
from aesr1.images.load import open_image
from aesr1.model.image_classes import CLASSES_FILE, ImageClassifier
from aesr1.outputs import require_same_settings
from aesr1.training.vision_tower import drop_features, keep_batch_norm
from aesr1.worker_processes import worker_pool
from photo_model import begin_with_components, build_image_processor, build_model, build_processor
from photo_tower import build_tower, package_weights
from tiny_model import save_half

DESCRIBE_PROMPT = "Describe this photograph."


@dataclass(frozen=True)
class PretrainConfig:
    """One lesson."""

    steps: int = 250
    batch: int = 16
    learning_rate: float = 2e-3
    warmup: int = 20
    dropout: float = 0.3  # share of the picture's channels
    seed: int = 0


def see(image: str) -> tuple[PictureFacts, Any]:
    """The facts of a picture, and its pixels as the model gets them."""
    picture = open_image(image)
    return measure_facts(picture, domain="photographs"), picture


def corpus(facts: list[PictureFacts], rng: np.random.Generator, *, size: int = 4_000) -> list[str]:
    """Critiques of these pictures for all scores, to train the tokenizer."""
    return [criticise_photo(facts[int(rng.integers(len(facts)))], float(rng.random()), rng) for _ in range(size)]


@torch.no_grad()
def features_of(tower: Any, image_processor: Any, pictures: list[Any], *, batch: int = 4) -> torch.Tensor:
    """(n, channels, 9, 9) float16 of the tower."""
    seen = []
    for start in range(0, len(pictures), batch):
        pixels = image_processor(pictures[start : start + batch], return_tensors="pt")["pixel_values"]
        seen.append(tower(pixels).last_hidden_state.half())
    return torch.cat(seen)


def class_layers(
    package: dict[str, torch.Tensor], features: torch.Tensor, persons: list[bool], *, penalty: float = 1000.0
) -> dict[str, torch.Tensor]:
    """ImageNet's classes as the package has them, and persons by ridge regression on standardised mean features."""
    channels = package["_fc.weight"].shape[1]
    means = features.float().mean((2, 3))[:, :channels].double()
    centre, spread = means.mean(0), means.std(0) + 1e-3
    x = (means - centre) / spread
    wanted = torch.tensor(persons, dtype=torch.float64)
    solved = x.T @ torch.linalg.solve(x @ x.T + penalty * torch.eye(len(x)), wanted - wanted.mean())
    weight = solved / spread
    return {
        "weight": package["_fc.weight"],
        "bias": package["_fc.bias"],
        "person_weight": weight.float(),
        "person_bias": (wanted.mean() - centre @ weight).float(),
    }


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


def pretrain(images: list[str], persons: list[bool], config: PretrainConfig, output: Path) -> None:
    """Write the backbone to `output` (processor, float16 weights, log.jsonl)."""
    if (output / "config.json").exists():
        raise AesError(f"{output} exists", fix="choose another output folder; nothing is overwritten")
    require_same_settings(output, config)
    with worker_pool() as workers:
        facts, pictures = map(list, zip(*workers.map(see, images, chunksize=8), strict=True))
    rng = np.random.default_rng(config.seed)
    weights_of_package = package_weights()
    model_tower = build_tower(weights_of_package)
    features = features_of(model_tower, build_image_processor(), pictures)
    classes = class_layers(weights_of_package, features, persons)
    classifier = ImageClassifier(model_tower, None, classes)
    subjects = [name_subject(*seen) for seen in zip(*classifier.of_features(features), strict=True)]
    facts = [replace(fact, subject=subject) for fact, subject in zip(facts, subjects, strict=True)]
    processor = build_processor(corpus(facts, rng), prompts=(DESCRIBE_PROMPT,))
    model = build_model(processor, model_tower, seed=config.seed)
    begin_with_components(model, features)
    model.model.vision_tower.requires_grad_(False)
    # its lesson is about light and order: a trained projector keeps what that needs, and loses what is in the picture
    model.model.multi_modal_projector.requires_grad_(False)
    keep_batch_norm(model)
    tower, chosen = model.model.vision_tower, np.arange(0)
    kept = tower.forward
    tower.forward = lambda *_, **__: Features(last_hidden_state=features[chosen].float())
    drop_features(model, config.dropout)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / config.warmup, 0.5 + 0.5 * math.cos(math.pi * step / config.steps)),
    )
    started, losses = time.time(), []
    for step in range(1, config.steps + 1):
        chosen = rng.integers(len(images), size=config.batch)
        texts = [" ".join(describe_photo(facts[i], rng)) for i in chosen]
        inputs = encode(processor, DESCRIBE_PROMPT, texts)
        loss = model(**inputs, pixel_values=torch.zeros(1)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 25 == 0:
            row = {
                "step": step,
                "loss": round(float(np.mean(losses[-25:])), 4),
                "seconds": round(time.time() - started),
            }
            print(json.dumps(row), file=sys.stderr, flush=True)
            with (output / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
    tower.forward = kept
    save_file({name: tensor.half().contiguous() for name, tensor in classes.items()}, output / CLASSES_FILE)
    save_half(model, processor, output, stage="pretrain")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--steps", type=int, default=PretrainConfig.steps)
    parser.add_argument("--seed", type=int, default=PretrainConfig.seed)
    parser.add_argument("--images", type=Path, help="folder of the pictures; default: the folder of the table")
    given = parser.parse_args()
    with given.table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == given.split]
    images = [str((given.images or given.table.parent).absolute() / row["image"]) for row in rows]
    persons = [row["category"] == "person" for row in rows]
    pretrain(images, persons, PretrainConfig(steps=given.steps, seed=given.seed), given.output)


if __name__ == "__main__":
    main()
