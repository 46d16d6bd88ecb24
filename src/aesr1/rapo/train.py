"""RAPO: TRL's GRPOTrainer under the rewards of `rapo.rewards`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trl import GRPOConfig

from aesr1.model.lora_checkpoint import is_lora_checkpoint
from aesr1.model.out_of_memory import explain_out_of_memory
from aesr1.rapo.dry_run import describe_run
from aesr1.rapo.reward_functions import Reward, RewardSettings, reward_functions
from aesr1.rapo.settings import PAPER, RapoConfig, check_config, check_data, check_replies_fit, derive_settings
from aesr1.rapo.trainer import RapoTrainer
from aesr1.rapo.validation import Validation, validation_ratings
from aesr1.records import Rating, ratings_of_split, read_rows
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


def rapo(config: RapoConfig, training: GRPOConfig) -> Path:
    """Train a checkpoint by RAPO; its folder. Resumes an unfinished run from its last whole checkpoint."""
    started = time.time()
    launch = launch_from_environment(training)
    given = _checked(config, training, launch)
    vlm = begin_run(config, training, launch)
    progress = ProgressBar("rapo")
    with explain_out_of_memory("setting up the training", advice_for_loading(config, training)):
        trainer = RapoTrainer(
            model=vlm.model,
            reward_funcs=given.rewards,
            args=training,
            train_dataset=picture_dataset(_rows(given.train), max_pixels=config.max_pixels),
            processing_class=vlm.processor,
            callbacks=[progress],
            dynamic_sampling_rounds=config.dynamic_sampling_rounds,
            read_once=config.read_once,
            peft_config=lora_config(vlm.model, rank=config.lora_rank, alpha=config.lora_alpha),
        )
        if trainer.ref_model is not None and is_lora_checkpoint(config.model):
            # TRL has read the reference from disk, where the adapter's base lies without it
            trainer.accelerator.unwrap_model(trainer.ref_model).load_state_dict(vlm.model.state_dict())
    if given.judged:
        trainer.add_callback(
            Validation(
                trainer,
                vlm,
                given.judged,
                every=config.validate_every,
                batch=config.validate_batch,
                max_new_tokens=training.max_completion_length or 512,
            )
        )
    train(trainer, progress, resume=given.resume)
    return finish_run(trainer, vlm.processor, config, stage="rapo", started=started)


class _Given(NamedTuple):
    """What a run starts from."""

    train: list[Rating]
    judged: list[Rating]
    rewards: list[Reward]
    resume: str | None


def _checked(config: RapoConfig, training: GRPOConfig, launch: Launch) -> _Given:
    """All that can be checked before a model loads. AesError for a run that cannot be."""
    check_config(config, training, launch)
    check_loggers(training.report_to)
    check_vllm(training)
    rewards = reward_functions(config.rewards, _reward_settings(config))
    ratings = read_rows(Path(config.ratings), Rating)
    train = ratings_of_split(ratings, config.split, where=Path(config.ratings))
    check_data(config, training, launch, train)
    judged = validation_ratings(
        ratings, split=config.validate_on, every=config.validate_every, images=config.validate_images
    )
    check_images([rating.image for rating in (*train, *judged)])
    check_replies_fit(config, training)
    return _Given(train, judged, rewards, resume_point(Path(training.output_dir), launch))


def _reward_settings(config: RapoConfig) -> RewardSettings:
    return RewardSettings(
        comparison_scope=config.comparison_scope,
        sigma=config.sigma,
        threshold=config.threshold,
        tie_target=config.tie_target,
        soft_preferences=config.soft_preferences,
        compare_across_datasets=config.compare_across_datasets,
        sigma_end=config.sigma_end,
    )


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
    """`aesr1 rapo --config recipe.yaml [--any_setting value]`; the checkpoint's folder, or the plan of a dry run."""
    kinds = [RapoConfig, GRPOConfig, DryRun]
    config, training, dry = parse_recipe(kinds, arguments, stage="rapo", derive=derive_settings, **PAPER)
    if dry.dry_run:
        launch = planned_launch(dry, training)
        return describe_run(config, training, launch, _checked(config, training, launch).train)
    return rapo(config, training)
