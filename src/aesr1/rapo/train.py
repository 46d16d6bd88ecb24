"""RAPO: TRL's GRPOTrainer under the rewards of `rapo.rewards`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import RepeatSampler

from aesr1.contract import MAX_PIXELS
from aesr1.errors import AesError
from aesr1.folders import claim
from aesr1.metrics import plcc, srcc
from aesr1.predict import PredictSettings, predict
from aesr1.rapo.adapter import GROUP_FIX, RewardSettings, reward_functions
from aesr1.records import Prediction, Rating, of_split, read_rows
from aesr1.training import (
    Progressing,
    Resuming,
    as_dataset,
    check_images,
    finish,
    freeze_vision,
    parse_recipe,
    resume_point,
    run,
)
from aesr1.vlm import BACKBONE, Vlm, load

PAPER: dict[str, Any] = {
    "loss_type": "grpo",
    "beta": 0.01,
    "use_bias_correction_kl": False,
    "epsilon": 0.2,
    "epsilon_high": 0.28,
    "num_generations": 4,
    "max_completion_length": 512,
    "temperature": 1.0,
    "learning_rate": 1e-6,
    "num_train_epochs": 10.0,
    "scale_rewards": "group",
    "report_to": "tensorboard",
    "logging_steps": 5,
    "save_steps": 50,
    "save_total_limit": 2,
    "disable_tqdm": True,
    "log_multimodal": False,
}
"""Parity with the paper where TRL's defaults differ; any may be set in a recipe or on the command line."""


@dataclass(frozen=True)
class RapoConfig:
    """What TRL's GRPOConfig does not say. `output_dir` and `reward_weights` are TRL's."""

    ratings: str  # ratings.jsonl
    model: str = BACKBONE
    split: str = "train"
    rewards: list[str] = field(default_factory=lambda: ["relative", "absolute", "format"])
    scope: str = "local"  # or global
    sigma: float = 0.1
    threshold: float = 0.1  # of the binary reward
    tie: float = 1.0  # ½ says that equal ratings ought not to win
    max_pixels: int = MAX_PIXELS
    freeze_vision: bool = False  # the paper trains it
    dtype: str = "float32"  # of the weights that are trained; bf16 then comes from TRL's bf16: true
    validate_on: str = "val"  # split
    validate_every: int = 50  # steps; 0 never
    validate_images: int = 128


def rapo(config: RapoConfig, training: GRPOConfig) -> Path:
    """Train a checkpoint by RAPO; its folder. Resumes an unfinished run from its last whole checkpoint."""
    started = time.time()
    output = Path(training.output_dir)
    check(config, training)
    ratings = read_rows(Path(config.ratings), Rating)
    train = of_split(ratings, config.split, where=Path(config.ratings))
    held_out = _validation_rows(config, ratings)
    check_images([rating.image for rating in (*train, *held_out)])
    rewards = reward_functions(config.rewards, RewardSettings(config.scope, config.sigma, config.threshold, config.tie))
    resume = resume_point(output)
    claim(output, config)
    vlm = load(config.model, max_pixels=config.max_pixels, device=str(training.device), dtype=config.dtype)
    if config.freeze_vision:
        freeze_vision(vlm.model)
    vlm.model.train()
    progress = Progressing("rapo")
    trainer = RapoTrainer(
        model=vlm.model,
        reward_funcs=rewards,
        args=training,
        train_dataset=as_dataset(_rows(train), max_pixels=config.max_pixels),
        processing_class=vlm.processor,
        callbacks=[progress],
    )
    if held_out:
        longest = training.max_completion_length or 512
        trainer.add_callback(Validating(trainer, vlm, held_out, every=config.validate_every, max_new_tokens=longest))
    run(trainer, progress, resume=resume)
    return finish(trainer, vlm.processor, config, stage="rapo", started=started)


def check(config: RapoConfig, training: GRPOConfig) -> None:
    """Refuse what cannot be ranked, before a model loads."""
    rows = training.per_device_train_batch_size * (training.steps_per_generation or 1)
    replies = training.num_generations or 1
    if config.scope not in ("local", "global"):
        raise AesError(f"scope is {config.scope!r}", fix="choose local (the images of one process) or global (of all)")
    for name in ("sigma", "threshold"):
        if not getattr(config, name) > 0:
            raise AesError(f"{name} is {getattr(config, name)}", fix="give a width above 0 on the 0–1 scale")
    if not 0 <= config.tie <= 1:
        raise AesError(f"tie is {config.tie}", fix="give 1 (the paper's) or 0.5")
    if training.reward_weights is not None and len(training.reward_weights) != len(config.rewards):
        raise AesError(
            f"{len(training.reward_weights)} reward_weights for {len(config.rewards)} rewards",
            fix="give one weight a reward",
        )
    if config.scope == "local" and rows % replies:
        raise AesError(
            f"{rows} replies a process do not fall into groups of {replies}",
            fix=GROUP_FIX,
        )
    together = rows if config.scope == "local" else training.generation_batch_size or rows
    images = together // replies
    if "relative" in config.rewards and images < 2:
        raise AesError(
            f"only {images} image meets at a time, so there is nothing to rank it against",
            fix="raise steps_per_generation or per_device_train_batch_size, or leave relative out of rewards",
        )


def _rows(ratings: Sequence[Rating]) -> list[dict[str, Any]]:
    return [
        {"image": rating.image, "sample": number, "rating": rating.score, "domain": rating.domain}
        for number, rating in enumerate(ratings)
    ]


def _validation_rows(config: RapoConfig, ratings: list[Rating]) -> list[Rating]:
    """A fixed random choice of the validation split, the same at every validation and after a resume."""
    rows = [rating for rating in ratings if rating.split == config.validate_on]
    if not config.validate_every:
        return []
    if not rows:
        raise AesError(
            f"there are no ratings of split {config.validate_on!r} to validate on",
            fix="set validate_on to a split that there is, or validate_every: 0 to go without",
        )
    chosen = np.random.default_rng(0).permutation(len(rows))[: config.validate_images]
    return [rows[i] for i in sorted(chosen)]


class EpochSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's sampler, its order a function of seed and epoch: a resumed run meets the images it would have met."""

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate at the start of every epoch."""
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + epoch)


class RapoTrainer(Resuming, GRPOTrainer):  # type: ignore[misc]  # TRL is untyped
    """GRPOTrainer whose weights and order of images survive a resume."""

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        stock = super()._get_train_sampler(dataset)
        return EpochSampler(
            stock.data_source, stock.mini_repeat_count, stock.batch_size, stock.repeat_count, stock.shuffle, stock.seed
        )


class Validating(TrainerCallback):  # type: ignore[misc]
    """Scores held-out images with the model as it stands and logs PLCC, SRCC and the share of readable replies."""

    def __init__(self, trainer: Any, vlm: Vlm, ratings: Sequence[Rating], *, every: int, max_new_tokens: int) -> None:
        self.trainer, self.vlm, self.ratings, self.every = trainer, vlm, ratings, every
        self.settings = PredictSettings(batch_size=32, max_new_tokens=max_new_tokens)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Validate every so many steps; random states are left as they were, so that a run does not depend on it.

        Every process does the same: generating on one alone would hang where weights are sharded.
        """
        if state.global_step % self.every:
            return
        with torch.random.fork_rng():
            self.vlm.model.eval()
            rows = list(predict(self.vlm, [rating.image for rating in self.ratings], self.settings))
            self.vlm.model.train()
        figures = {
            "validation/readable": sum(row.readable for row in rows) / len(rows),
            **_agreement(rows, self.ratings),
        }
        Trainer.log(self.trainer, figures)  # not GRPOTrainer's, which would end its own averages here


def _agreement(rows: Sequence[Prediction], ratings: Sequence[Rating]) -> dict[str, float]:
    """PLCC and SRCC, the mean over data sets; nothing of a set that people rated all alike."""
    found = []
    for domain in sorted({rating.domain for rating in ratings}):
        pairs = [
            (row.score, r.score)
            for row, r in zip(rows, ratings, strict=True)
            if r.domain == domain and row.score is not None
        ]
        if len({human for _, human in pairs}) > 1:
            predicted, human = zip(*pairs, strict=True)
            found.append((plcc(predicted, human), srcc(predicted, human)))
    if not found:
        return {}
    means = np.mean(found, axis=0)
    return {"validation/plcc": float(means[0]), "validation/srcc": float(means[1])}


def main(arguments: Sequence[str]) -> Path:
    """`aesr1 rapo --config recipe.yaml [--any_setting value]`."""
    config, training = parse_recipe([RapoConfig, GRPOConfig], arguments, **PAPER)
    return rapo(config, training)
