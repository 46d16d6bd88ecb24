"""The settings of RAPO, the paper's values, and the checks before a model loads."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trl import GRPOConfig

from aesr1.contract import Judgement, render_reply
from aesr1.errors import AesError
from aesr1.model.load import ReadConfig
from aesr1.rapo.image_order import images_in_blocks
from aesr1.rapo.reward_functions import GROUP_FIX, LOCAL, RewardSettings
from aesr1.records import Rating
from aesr1.training.checks import check_trainer
from aesr1.training.dry_run import adapt_settings
from aesr1.training.launch import Launch
from aesr1.training.schedule import schedule, steps_between_saves
from aesr1.training.settings import ModelSettings
from aesr1.training.validation import ValidationSettings

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
    "router_aux_loss_coef": 0.0,  # TRL would add this loss to that of a mixture of experts
}
"""The paper's values where TRL's defaults differ. A recipe or a flag may change each."""


@dataclass(frozen=True)
class RapoConfig(ValidationSettings):
    """Settings of RAPO itself. TRL's GRPOConfig has the others, such as `output_dir` and `reward_weights`."""

    _argument_group_name = "settings of RAPO"

    ratings: str = field(metadata={"help": "ratings.jsonl, as `aesr1 ratings import` writes it."})
    split: str = field(default="train", metadata={"help": "Split of the ratings to train on."})
    read_once: bool = field(
        default=True, metadata={"help": "Read a picture once for its K replies, where the model family allows it."}
    )
    dynamic_sampling_rounds: int = field(
        default=0,
        metadata={
            "help": "Rounds in which groups with zero advantage are replaced by groups of other images (0: off)."
        },
    )


def check_config(
    config: RapoConfig, rewards: RewardSettings, model: ModelSettings, training: GRPOConfig, launch: Launch
) -> None:
    """Refuse settings that cannot work together, before a model loads. AesError."""
    check_trainer(training, launch, dtype=model.dtype, lora_rank=model.lora_rank)
    rows = rows_of_process(training)
    replies = training.num_generations or 1
    if training.reward_weights is not None and len(training.reward_weights) != len(rewards.rewards):
        raise AesError(
            f"{len(training.reward_weights)} reward_weights for {len(rewards.rewards)} rewards",
            fix="give one weight for each reward",
        )
    if (rewards.comparison_scope == LOCAL or config.dynamic_sampling_rounds) and rows % replies:
        raise AesError(f"{rows} replies of one process do not form groups of {replies}", fix=GROUP_FIX)
    if "relative" in rewards.rewards and images_compared(rewards, training, launch) < 2:
        raise AesError(
            "only one image is compared at a time, so there is no ranking",
            fix="raise steps_per_generation or per_device_train_batch_size, or leave relative out of rewards",
        )
    if training.save_steps >= 1:  # below 1 it is a share of all steps, which depend on the data: see check_data
        _check_saves(training, int(training.save_steps))


def check_data(rewards: RewardSettings, training: GRPOConfig, launch: Launch, ratings: Sequence[Rating]) -> None:
    """Refuse settings that cannot work with these training ratings. AesError."""
    if rewards.soft_preferences:
        _check_rater_stds(ratings)
    passes = passes_of(rewards, training, launch, [rating.domain for rating in ratings])
    steps = schedule(training, passes).steps
    _check_saves(training, steps_between_saves(training, steps))


def _check_saves(training: GRPOConfig, every: int) -> None:
    generated = _passes(training)
    if training.save_strategy == "steps" and every * training.gradient_accumulation_steps % generated:
        raise AesError(
            f"a checkpoint every {every} steps would fall between the passes over one generation batch",
            fix=f"make save_steps × gradient_accumulation_steps a multiple of {generated}, or a resume is not exact",
        )


def check_replies_fit(model: ModelSettings, training: GRPOConfig, *, read: ReadConfig) -> None:
    """AesError where even the shortest readable reply would be cut off.

    `read` reads the model's config and processor, not its weights. AesError as `model.load.load_config`.
    """
    processor = read(model.model, max_pixels=model.max_pixels).processor
    shortest = render_reply(Judgement(0.5, "-"))
    need = len(processor.tokenizer(shortest, add_special_tokens=False)["input_ids"])
    longest = training.max_completion_length
    if longest is not None and longest < need:
        raise AesError(
            f"max_completion_length is {longest}, and the shortest reply that can be read takes {need} tokens",
            fix=f"give more than {need}: reasons take hundreds, the paper's recipe has 1,024",
        )


def rows_of_process(training: GRPOConfig) -> int:
    """Replies of one process in a rollout."""
    rows: int = training.per_device_train_batch_size * (training.steps_per_generation or 1)
    return rows


def images_compared(rewards: RewardSettings, training: GRPOConfig, launch: Launch) -> int:
    """Images that are ranked against each other at a time."""
    processes = 1 if rewards.comparison_scope == LOCAL else launch.processes
    return rows_of_process(training) * processes // (training.num_generations or 1)


def passes_of(rewards: RewardSettings, training: GRPOConfig, launch: Launch, domains: Sequence[str]) -> int:
    """Micro-batches in an epoch, for each process; `domains` has the data set of each training image.

    AesError where the images do not fill one batch.
    """
    together = rows_of_process(training) * launch.processes // (training.num_generations or 1)
    images = len(domains)
    if rewards.group_by_dataset:
        block = images_compared(rewards, training, launch)
        for name, count in Counter(domains).items():
            if count < block:
                raise AesError(
                    f"{name} has {count} images to train on, but {block} are compared at a time",
                    fix="lower images_per_comparison, leave the data set out, or set group_by_dataset: false",
                )
        images = images_in_blocks(domains, block)
    if images < together:
        raise AesError(
            f"there are {images} images to train on, but one batch has {together}",
            fix="lower images_per_comparison (or steps_per_generation), or use fewer processes",
        )
    return images // together * _passes(training)


def _passes(training: GRPOConfig) -> int:
    """Micro-batches between two rollouts."""
    return int((training.steps_per_generation or 1) * training.num_iterations)


def derive_settings(settings: Namespace) -> int | None:
    """As `adapt_settings`. Also sets `steps_per_generation` from `images_per_comparison`. AesError."""
    processes = adapt_settings(settings)
    if not settings.images_per_comparison:
        return processes
    micro_batch, replies = settings.per_device_train_batch_size, settings.num_generations
    steps, rest = divmod(settings.images_per_comparison * replies, micro_batch)
    if rest or steps < 1:
        raise AesError(
            f"{settings.images_per_comparison} images × {replies} replies cannot be divided by a micro-batch of "
            f"{micro_batch}",
            fix="choose images_per_comparison and per_device_train_batch_size so that they do, such as 8 and 4",
        )
    if settings.steps_per_generation not in (None, steps) or settings.generation_batch_size is not None:
        raise AesError(
            f"images_per_comparison {settings.images_per_comparison} means steps_per_generation {steps}, but another "
            "value is given",
            fix="leave steps_per_generation and generation_batch_size out",
        )
    settings.steps_per_generation = steps
    return processes


def _check_rater_stds(ratings: Sequence[Rating]) -> None:
    known = [rating.rater_std for rating in ratings if rating.rater_std is not None]
    if not known:
        raise AesError(
            "no rating has a rater_std, so there are no soft preferences",
            fix="leave soft_preferences out, or import the ratings with their votes",
        )
    if min(known) < 0:
        raise AesError("a rater_std is below 0", fix="correct the ratings: it is a standard deviation")
