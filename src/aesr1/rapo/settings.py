"""RAPO's settings: the paper's, ours over TRL's, and what of them cannot be."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trl import GRPOConfig

from aesr1.contract import MAX_PIXELS, Judgement, render_reply
from aesr1.errors import AesError
from aesr1.model.load import BACKBONE, load_config
from aesr1.rapo.reward_functions import GROUP_FIX
from aesr1.records import Rating
from aesr1.training.checks import check_stage
from aesr1.training.dry_run import adapt_settings, schedule, steps_between_saves
from aesr1.training.launch import Launch

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

    _argument_group_name = "settings of RAPO"

    ratings: str = field(metadata={"help": "ratings.jsonl, as `aesr1 ratings import` writes it."})
    model: str = field(
        default=BACKBONE, metadata={"help": "What to begin with: a folder, a hub id, or an embedded name."}
    )
    split: str = field(default="train", metadata={"help": "The ratings to train on."})
    rewards: list[str] = field(
        default_factory=lambda: ["relative", "absolute", "format"],
        metadata={"help": "Some of relative (the ranking), absolute, binary, format."},
    )
    comparison_scope: str = field(
        default="local",
        metadata={"help": "Whose images meet in the ranking: local, those of one process; global, of all."},
    )
    images_per_comparison: int = field(
        default=0,
        metadata={"help": "A process's images that meet; sets steps_per_generation, 0 takes what that gives."},
    )
    compare_across_datasets: bool = field(
        default=False, metadata={"help": "Have images of different data sets meet as well."}
    )
    sigma: float = field(default=0.1, metadata={"help": "Width of the absolute reward, on the 0–1 scale."})
    sigma_end: float | None = field(default=None, metadata={"help": "Sigma moves there over the run."})
    threshold: float = field(default=0.1, metadata={"help": "How far off the binary reward lets a score be."})
    tie_target: float = field(
        default=1.0, metadata={"help": "What equal ratings are to be ranked as; 0.5: neither wins."}
    )
    soft_preferences: bool = field(
        default=False, metadata={"help": "Preferences from the raters' spread, instead of 0 or 1."}
    )
    read_once: bool = field(
        default=True, metadata={"help": "Read a picture once for its K replies, where the model family allows it."}
    )
    dynamic_sampling_rounds: int = field(
        default=0, metadata={"help": "Rounds in which groups without spread make room for other images."}
    )
    max_pixels: int = field(default=MAX_PIXELS, metadata={"help": "A larger picture is shrunk to so many pixels."})
    freeze_vision: bool = field(
        default=False, metadata={"help": "Leave the vision tower as it is; the paper trains it."}
    )
    lora_rank: int = field(default=0, metadata={"help": "Rank of LoRA; 0 trains all weights."})
    lora_alpha: int = field(default=32, metadata={"help": "LoRA's scale, often twice its rank."})
    attention: str = field(
        default="sdpa", metadata={"help": "sdpa, eager, or flash_attention_2 where flash-attn is installed."}
    )
    dtype: str = field(
        default="float32",
        metadata={"help": "Of the weights: float32, bfloat16, float16; bf16: true makes arithmetic fast by itself."},
    )
    validate_on: str = field(default="val", metadata={"help": "The split that is judged on the way."})
    validate_every: int = field(default=50, metadata={"help": "Steps from one validation to the next; 0 never."})
    validate_images: int = field(default=128, metadata={"help": "How many images a validation judges."})
    validate_batch: int = field(default=32, metadata={"help": "How many of them are asked about at once."})


def check_config(config: RapoConfig, training: GRPOConfig, launch: Launch) -> None:
    """Refuse what cannot be trained or ranked, before a model loads."""
    check_stage(config, training, launch)
    rows = training.per_device_train_batch_size * (training.steps_per_generation or 1)
    replies = training.num_generations or 1
    if config.comparison_scope not in ("local", "global"):
        raise AesError(
            f"comparison_scope is {config.comparison_scope!r}",
            fix="choose local (the images of one process) or global (of all)",
        )
    for name in ("sigma", "sigma_end", "threshold"):
        width = getattr(config, name)
        if width is not None and not width > 0:
            raise AesError(f"{name} is {width}", fix="give a width above 0 on the 0–1 scale")
    for name, part in (
        ("soft_preferences", "relative"),
        ("compare_across_datasets", "relative"),
        ("sigma_end", "absolute"),
    ):
        if getattr(config, name) and part not in config.rewards:
            raise AesError(
                f"{name} is set, and the {part} reward, which it is about, is not among the rewards",
                fix=f"add {part} to rewards or leave {name} out",
            )
    if not 0 <= config.tie_target <= 1:
        raise AesError(f"tie_target is {config.tie_target}", fix="give 1 (the paper's) or 0.5")
    if training.reward_weights is not None and len(training.reward_weights) != len(config.rewards):
        raise AesError(
            f"{len(training.reward_weights)} reward_weights for {len(config.rewards)} rewards",
            fix="give one weight a reward",
        )
    if (config.comparison_scope == "local" or config.dynamic_sampling_rounds) and rows % replies:
        raise AesError(
            f"{rows} replies a process do not fall into groups of {replies}",
            fix=GROUP_FIX,
        )
    together = rows if config.comparison_scope == "local" else rows * launch.processes
    images = together // replies
    if "relative" in config.rewards and images < 2:
        raise AesError(
            f"only {images} image meets at a time, so there is nothing to rank it against",
            fix="raise steps_per_generation or per_device_train_batch_size, or leave relative out of rewards",
        )
    if training.save_steps >= 1:  # below 1 it is a share of the steps, which the data decide: see check_data
        _check_saves(training, int(training.save_steps))


def check_data(config: RapoConfig, training: GRPOConfig, launch: Launch, ratings: Sequence[Rating]) -> None:
    """Refuse what cannot be with these training ratings, as `check_config`."""
    check_rater_stds(config, ratings)
    steps = schedule(training, passes_of(training, launch, len(ratings))).steps
    _check_saves(training, steps_between_saves(training, steps))


def _check_saves(training: GRPOConfig, every: int) -> None:
    generated = _passes(training)
    if training.save_strategy == "steps" and every * training.gradient_accumulation_steps % generated:
        raise AesError(
            f"a checkpoint every {every} steps would fall between the passes over one generation batch",
            fix=f"make save_steps × gradient_accumulation_steps a multiple of {generated}, or a resume is not exact",
        )


def check_replies_fit(config: RapoConfig, training: GRPOConfig) -> None:
    """AesError where even the shortest reply would be cut off, so that no reply could ever be read.

    Of the model only config and processor are read. AesError as `vlm.load`.
    """
    processor = load_config(config.model, max_pixels=config.max_pixels).processor
    shortest = render_reply(Judgement(0.5, "-"))
    need = len(processor.tokenizer(shortest, add_special_tokens=False)["input_ids"])
    longest = training.max_completion_length
    if longest is not None and longest < need:
        raise AesError(
            f"max_completion_length is {longest}, and the shortest reply that can be read takes {need} tokens",
            fix=f"give more than {need}: reasons take hundreds, the paper's recipe has 1,024",
        )


def passes_of(training: GRPOConfig, launch: Launch, images: int) -> int:
    """Micro-batches of an epoch of so many images, for each process. AesError where they do not fill one batch."""
    rows: int = training.per_device_train_batch_size * (training.steps_per_generation or 1)
    together = rows * launch.processes // (training.num_generations or 1)
    if images < together:
        raise AesError(
            f"there are {images} images to train on, and {together} are asked about at a time",
            fix="lower images_per_comparison (or steps_per_generation), or use fewer processes",
        )
    return images // together * _passes(training)


def _passes(training: GRPOConfig) -> int:
    """Micro-batches that are trained on before there are new replies."""
    return int((training.steps_per_generation or 1) * training.num_iterations)


def derive_settings(settings: Namespace) -> int | None:
    """As `adapt_settings`; and `steps_per_generation` follows from `images_per_comparison`. AesError."""
    processes = adapt_settings(settings)
    if not settings.images_per_comparison:
        return processes
    micro_batch, replies = settings.per_device_train_batch_size, settings.num_generations
    steps, rest = divmod(settings.images_per_comparison * replies, micro_batch)
    if rest or steps < 1:
        raise AesError(
            f"{settings.images_per_comparison} images × {replies} replies do not divide by a micro-batch of {micro_batch}",
            fix="choose images_per_comparison and per_device_train_batch_size so that they do, such as 8 and 4",
        )
    if settings.steps_per_generation not in (None, steps) or settings.generation_batch_size is not None:
        raise AesError(
            f"images_per_comparison {settings.images_per_comparison} means steps_per_generation {steps}, and the recipe says "
            "something else",
            fix="leave steps_per_generation and generation_batch_size out",
        )
    settings.steps_per_generation = steps
    return processes


def check_rater_stds(config: RapoConfig, ratings: Sequence[Rating]) -> None:
    """AesError where preferences are to come from a spread that no rating has, or that is none."""
    if not config.soft_preferences:
        return
    known = [rating.rater_std for rating in ratings if rating.rater_std is not None]
    if not known:
        raise AesError(
            "no rating has a rater_std, so there are no soft preferences",
            fix="leave soft_preferences out, or import the ratings with their votes",
        )
    if min(known) < 0:
        raise AesError("a rating's spread lies below 0", fix="mend the ratings: it is a standard deviation")
