"""RAPO's settings: the paper's, ours over TRL's, and what of them cannot be."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trl import GRPOConfig

from aesr1.contract import MAX_PIXELS
from aesr1.dry_run import without_gpu
from aesr1.errors import AesError
from aesr1.launch import Launch
from aesr1.rapo.adapter import GROUP_FIX
from aesr1.records import Rating
from aesr1.trainable import check_dtype, check_lora
from aesr1.vlm import BACKBONE

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
    scope: str = "local"  # which images meet in the ranking: those of one process, or global: of all
    images_together: int = 0  # a process's images that meet; sets steps_per_generation, 0 takes what that gives
    across_domains: bool = False  # whether images of different data sets meet
    sigma: float = 0.1
    sigma_end: float | None = None  # sigma moves there over the run
    threshold: float = 0.1  # of the binary reward
    tie: float = 1.0  # ½ says that equal ratings ought not to win
    soft_preferences: bool = False  # from the raters' spread, instead of 0 or 1
    read_once: bool = True  # a picture once for its K replies, where the model family allows it
    resample: int = 0  # rounds in which groups without spread make room for other images
    max_pixels: int = MAX_PIXELS
    freeze_vision: bool = False  # the paper trains it
    lora_rank: int = 0  # 0 trains all weights
    lora_alpha: int = 32
    attention: str = "sdpa"  # or flash_attention_2, where it is installed
    dtype: str = "float32"  # of the weights; bf16 arithmetic comes from TRL's bf16: true
    validate_on: str = "val"  # split
    validate_every: int = 50  # steps; 0 never
    validate_images: int = 128


def check(config: RapoConfig, training: GRPOConfig, launch: Launch) -> None:
    """Refuse what cannot be trained or ranked, before a model loads."""
    check_lora(config.lora_rank, launch)
    check_dtype(config.dtype, config.lora_rank, launch)
    rows = training.per_device_train_batch_size * (training.steps_per_generation or 1)
    replies = training.num_generations or 1
    if config.scope not in ("local", "global"):
        raise AesError(f"scope is {config.scope!r}", fix="choose local (the images of one process) or global (of all)")
    for name in ("sigma", "sigma_end", "threshold"):
        width = getattr(config, name)
        if width is not None and not width > 0:
            raise AesError(f"{name} is {width}", fix="give a width above 0 on the 0–1 scale")
    for name in ("images_together", "resample", "validate_every"):
        if getattr(config, name) < 0:
            raise AesError(f"{name} is {getattr(config, name)}", fix="give 0 to go without, or a number above it")
    for name, part in (("soft_preferences", "relative"), ("across_domains", "relative"), ("sigma_end", "absolute")):
        if getattr(config, name) and part not in config.rewards:
            raise AesError(
                f"{name} is set, and the {part} reward, which it is about, is not among the rewards",
                fix=f"add {part} to rewards or leave {name} out",
            )
    if not 0 <= config.tie <= 1:
        raise AesError(f"tie is {config.tie}", fix="give 1 (the paper's) or 0.5")
    if training.reward_weights is not None and len(training.reward_weights) != len(config.rewards):
        raise AesError(
            f"{len(training.reward_weights)} reward_weights for {len(config.rewards)} rewards",
            fix="give one weight a reward",
        )
    if (config.scope == "local" or config.resample) and rows % replies:
        raise AesError(
            f"{rows} replies a process do not fall into groups of {replies}",
            fix=GROUP_FIX,
        )
    together = rows if config.scope == "local" else rows * launch.processes
    images = together // replies
    if "relative" in config.rewards and images < 2:
        raise AesError(
            f"only {images} image meets at a time, so there is nothing to rank it against",
            fix="raise steps_per_generation or per_device_train_batch_size, or leave relative out of rewards",
        )
    saved, generated = (training.save_steps or 0) * training.gradient_accumulation_steps, _passes(training)
    if training.save_strategy == "steps" and saved % generated:
        raise AesError(
            f"a checkpoint every {training.save_steps:g} steps would fall between the passes over one generation batch",
            fix=f"make save_steps × gradient_accumulation_steps a multiple of {generated}, or a resume is not exact",
        )


def passes_of(training: GRPOConfig, launch: Launch, images: int) -> int:
    """Micro-batches of an epoch of so many images, for each process. AesError where they do not fill one batch."""
    rows: int = training.per_device_train_batch_size * (training.steps_per_generation or 1)
    together = rows * launch.processes // (training.num_generations or 1)
    if images < together:
        raise AesError(
            f"there are {images} images to train on, and {together} are asked about at a time",
            fix="lower images_together (or steps_per_generation), or use fewer processes",
        )
    return images // together * _passes(training)


def _passes(training: GRPOConfig) -> int:
    """Micro-batches that are trained on before there are new replies."""
    return int((training.steps_per_generation or 1) * training.num_iterations)


def derive(settings: Namespace) -> None:
    """Set what follows from other settings: `steps_per_generation` from `images_together`. AesError."""
    without_gpu(settings)
    if not settings.images_together:
        return
    micro_batch, replies = settings.per_device_train_batch_size, settings.num_generations
    steps, rest = divmod(settings.images_together * replies, micro_batch)
    if rest or steps < 1:
        raise AesError(
            f"{settings.images_together} images × {replies} replies do not divide by a micro-batch of {micro_batch}",
            fix="choose images_together and per_device_train_batch_size so that they do, such as 8 and 4",
        )
    if settings.steps_per_generation not in (None, steps) or settings.generation_batch_size is not None:
        raise AesError(
            f"images_together {settings.images_together} means steps_per_generation {steps}, and the recipe says "
            "something else",
            fix="leave steps_per_generation and generation_batch_size out",
        )
    settings.steps_per_generation = steps


def check_spreads(config: RapoConfig, ratings: Sequence[Rating]) -> None:
    """AesError where preferences are to come from a spread that no rating has, or that is none."""
    if not config.soft_preferences:
        return
    known = [rating.spread for rating in ratings if rating.spread is not None]
    if not known:
        raise AesError(
            "no rating tells its raters' spread, so there are no soft preferences",
            fix="leave soft_preferences out, or import the ratings with their votes",
        )
    if min(known) < 0:
        raise AesError("a rating's spread lies below 0", fix="mend the ratings: it is a standard deviation")
