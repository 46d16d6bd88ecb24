"""RAPO: reinforcement learning with TRL's GRPOTrainer and the rewards of `rapo.rewards`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from trl import GRPOConfig

from aesr1.json_lines import read_rows
from aesr1.model.bundled_shapes import load_shape
from aesr1.model.load import ReadConfig, load_config
from aesr1.model.lora_checkpoint import is_lora_checkpoint
from aesr1.model.out_of_memory import explain_out_of_memory
from aesr1.rapo.dry_run import describe_run
from aesr1.rapo.reward_functions import COMPARING, RewardSettings, reward_functions
from aesr1.rapo.settings import (
    PAPER,
    RapoConfig,
    check_config,
    check_data,
    check_replies_fit,
    derive_settings,
    images_compared,
)
from aesr1.rapo.trainer import RapoTrainer
from aesr1.records import Rating, ratings_of_split
from aesr1.training.callbacks import ProgressBar
from aesr1.training.checks import check_loggers, check_vllm
from aesr1.training.dry_run import DryRun, planned_launch
from aesr1.training.launch import Launch, launch_from_environment
from aesr1.training.memory_advice import advice_for_loading
from aesr1.training.parameters import lora_config
from aesr1.training.picture_dataset import check_images, picture_dataset
from aesr1.training.recipe import parse_recipe
from aesr1.training.resume import resume_point
from aesr1.training.run import begin_run, finish_run, train
from aesr1.training.settings import ModelSettings
from aesr1.training.validation import RequireReadable, Validation, validation_ratings
from aesr1.training.vision_tower import share_features

SETTINGS = (RapoConfig, RewardSettings, ModelSettings, GRPOConfig)
"""The settings of a run, as a recipe and flags give them; the last are TRL's."""


def rapo(config: RapoConfig, rewards: RewardSettings, model: ModelSettings, training: GRPOConfig) -> Path:
    """Train a model by RAPO; returns the folder of the checkpoint. Resumes an unfinished run."""
    started = time.time()
    launch = launch_from_environment(training)
    data = _checked_data(config, rewards, model, training, launch)
    settings = {**asdict(config), **asdict(rewards), **asdict(model)}
    vlm = begin_run(model, training, launch, settings=settings)
    dataset = picture_dataset(_rows(data.train), max_pixels=model.max_pixels)
    progress = ProgressBar("rapo")
    with explain_out_of_memory("setting up the training", advice_for_loading(model, training)):
        trainer = RapoTrainer(
            model=vlm.model,
            reward_funcs=reward_functions(rewards),
            args=training,
            train_dataset=dataset,
            processing_class=vlm.processor,
            callbacks=[progress],
            dynamic_sampling_rounds=config.dynamic_sampling_rounds,
            rank_replacements=bool(COMPARING & set(rewards.rewards)),
            dataset_block=images_compared(rewards, training, launch) if rewards.group_by_dataset else 0,
            read_once=config.read_once,
            peft_config=lora_config(vlm.model, rank=model.lora_rank, alpha=model.lora_alpha),
        )
        if trainer.ref_model is not None:
            reference = trainer.accelerator.unwrap_model(trainer.ref_model)
            share_features(vlm.model, reference)
            if is_lora_checkpoint(model.model):
                # TRL has loaded the reference from disk: the adapter's base, without the adapter
                reference.load_state_dict(vlm.model.state_dict())
    replies = training.max_completion_length or 512
    if data.validation:
        trainer.add_callback(Validation(trainer, vlm, data.validation, config, max_new_tokens=replies))
    if config.min_readable:
        images = [rating.image for rating in data.validation or data.train]
        trainer.add_callback(RequireReadable(vlm, images, config, max_new_tokens=replies))
    train(trainer, progress, resume=data.resume)
    return finish_run(trainer, vlm.processor, settings, stage="rapo", started=started)


class _Data(NamedTuple):
    """What a run reads before its model loads."""

    train: list[Rating]
    validation: list[Rating]
    resume: str | None  # checkpoint


def _checked_data(
    config: RapoConfig,
    rewards: RewardSettings,
    model: ModelSettings,
    training: GRPOConfig,
    launch: Launch,
    *,
    read: ReadConfig = load_config,
) -> _Data:
    """Read the data and check all that can be checked before a model loads. AesError."""
    check_config(config, rewards, model, training, launch)
    check_loggers(training.report_to)
    check_vllm(training)
    ratings = read_rows(Path(config.ratings), Rating)
    train = ratings_of_split(ratings, config.split, where=Path(config.ratings))
    validation = validation_ratings(ratings, config) if config.validate_every else []
    check_data(rewards, training, launch, train)
    check_images([rating.image for rating in (*train, *validation)])
    check_replies_fit(model, training, read=read)
    return _Data(train, validation, resume_point(Path(training.output_dir), launch))


def _rows(ratings: Sequence[Rating]) -> list[dict[str, Any]]:
    return [
        {
            "image": rating.image,
            "sample": number,
            "rating": rating.score,
            "domain": rating.domain,
            "rater_std": rating.rater_std,
        }
        for number, rating in enumerate(ratings)
    ]


def main(arguments: Sequence[str]) -> Path | str:
    """`aesr1 rapo --config recipe.yaml [--any_setting value]`; returns the checkpoint's folder, or a dry run's text."""
    config, rewards, model, training, dry = parse_recipe(
        [*SETTINGS, DryRun], arguments, stage="rapo", derive=derive_settings, **PAPER
    )
    if dry.dry_run:
        launch = planned_launch(dry, training)
        ratings = _checked_data(config, rewards, model, training, launch, read=load_shape).train
        return describe_run(config, rewards, model, training, launch, domains=[rating.domain for rating in ratings])
    return rapo(config, rewards, model, training)
