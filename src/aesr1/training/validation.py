"""Validation during training: scores held-out images with the current model, and counts readable replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from aesr1.errors import AesError
from aesr1.json_lines import Appender
from aesr1.metrics import mae, plcc, srcc
from aesr1.model.load import Vlm
from aesr1.model.out_of_memory import explain_out_of_memory
from aesr1.model.predict import PredictSettings, predict
from aesr1.records import Prediction, Rating, SampledReply
from aesr1.terminal import say
from aesr1.training.callbacks import drop_rows_after
from aesr1.training.checks import check_settings
from aesr1.training.memory_advice import advice_for_validation

KEPT_REPLIES = 6
"""Number of images whose replies are kept at every validation."""
READABLE_IMAGES = 16
"""Number of images of which the share of readable replies is measured after the cold start and before RAPO."""


@dataclass(frozen=True, kw_only=True)
class ValidationSettings:
    """Which held-out images are scored during training; the settings of both stages begin with these."""

    validate_on: str = field(default="val", metadata={"help": "Split to validate on during training."})
    validate_every: int = field(default=50, metadata={"help": "Steps between validations; 0: never."})
    validate_images: int = field(default=128, metadata={"help": "Images in one validation."})
    validate_batch: int = field(default=32, metadata={"help": "How many images are scored in one batch."})
    min_readable: float = field(
        default=0.5,
        metadata={
            "help": f"Least share of readable replies about {READABLE_IMAGES} images: below it RAPO does not start, "
            "and the cold start warns. 0: RAPO does not check, as it must learn the form too."
        },
    )

    def __post_init__(self) -> None:
        check_settings(self)


class ReadableReplies(TrainerCallback):  # type: ignore[misc]
    """Counts the readable replies about a few images, before the first step or after the last."""

    def __init__(self, vlm: Vlm, images: Sequence[str], config: ValidationSettings, *, max_new_tokens: int) -> None:
        self.vlm, self.images, self.least = vlm, images[:READABLE_IMAGES], config.min_readable
        self.settings = PredictSettings(batch_size=config.validate_batch, max_new_tokens=max_new_tokens)

    def count(self, device: torch.device) -> int:
        """How many of the images get a readable reply."""
        return sum(bool(row.readable) for row in _predictions(self.vlm, self.images, self.settings, device))


class RequireReadable(ReadableReplies):
    """Ends a run before its first step where too few replies can be read: the others have no score to reward."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """AesError below `min_readable`. A resumed run was checked before."""
        if state.global_step:
            return
        readable, images = self.count(args.device), len(self.images)
        if readable < self.least * images:
            raise AesError(
                f"{readable} of the model's replies about {images} images can be read, and RAPO needs "
                f"{self.least:.0%} (min_readable): an unreadable reply has no score to reward",
                fix="start from a longer cold start (more rationales or epochs) or raise max_completion_length where "
                "replies are cut; min_readable: 0 trains all the same",
            )


class SayReadable(ReadableReplies):
    """Says at the end of a run how many replies can be read."""

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Print the count, with advice where RAPO would not start."""
        readable, images = self.count(args.device), len(self.images)
        if state.is_world_process_zero:
            say(f"replies that can be read: {readable} of {images}")
            if readable < self.least * images:
                say("  → RAPO needs more: train longer (num_train_epochs), or on more rationales")


def validation_ratings(ratings: Sequence[Rating], config: ValidationSettings) -> list[Rating]:
    """A fixed random sample of the validation split, the same at every validation and after a resume."""
    rows = [rating for rating in ratings if rating.split == config.validate_on]
    if not rows:
        raise AesError(
            f"there are no ratings of split {config.validate_on!r} to validate on",
            fix="set validate_on to an existing split, or validate_every: 0 for no validation",
        )
    chosen = np.random.default_rng(0).permutation(len(rows))[: config.validate_images]
    return [rows[i] for i in sorted(chosen)]


class Validation(TrainerCallback):  # type: ignore[misc]
    """Scores held-out images with the current model and logs PLCC, SRCC, MAE and the share of readable replies.

    Replies about a few of them are appended to replies.jsonl.
    """

    def __init__(
        self, trainer: Any, vlm: Vlm, ratings: Sequence[Rating], config: ValidationSettings, *, max_new_tokens: int
    ) -> None:
        self.trainer, self.vlm, self.ratings, self.every = trainer, vlm, ratings, config.validate_every
        self.settings = PredictSettings(batch_size=config.validate_batch, max_new_tokens=max_new_tokens)
        self.replies = Path(trainer.args.output_dir) / "replies.jsonl"

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Keep a killed run's replies up to its checkpoint."""
        if state.is_world_process_zero:
            drop_rows_after(self.replies, state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Validate every `every` steps."""
        if state.global_step % self.every:
            return
        rows = _predictions(self.vlm, [rating.image for rating in self.ratings], self.settings, args.device)
        figures = {"validation/readable": _readable(rows), **_agreement(rows, self.ratings)}
        should_log = control.should_log
        Trainer.log(self.trainer, figures)  # not GRPOTrainer's, which would reset its averages
        control.should_log = should_log  # a log resets this flag
        if state.is_world_process_zero:
            with Appender(self.replies) as file:
                pairs = zip(rows[:KEPT_REPLIES], self.ratings[:KEPT_REPLIES], strict=True)
                file.append(*(_sampled_reply(state.global_step, row, rating) for row, rating in pairs))


def _predictions(vlm: Vlm, images: Sequence[str], settings: PredictSettings, device: torch.device) -> list[Prediction]:
    """Predictions in the middle of training. Random states are restored, so that training does not depend on it.

    All processes must do the same: generating on one of them would hang with sharded weights.
    """
    # without a list torch keeps the state of every GPU, with a warning
    gpus = [] if device.type == "cpu" else [device]
    kind = "cuda" if device.type == "cpu" else device.type
    advice = advice_for_validation(settings.batch_size)
    with torch.random.fork_rng(gpus, device_type=kind), explain_out_of_memory("validating", advice):
        vlm.model.eval()
        rows = list(predict(vlm, images, settings))
        vlm.model.train()
    return rows


def _readable(rows: Sequence[Prediction]) -> float:
    return sum(bool(row.readable) for row in rows) / len(rows)


def _sampled_reply(step: int, row: Prediction, rating: Rating) -> SampledReply:
    return SampledReply(step, row.image, rating.score, row.score, bool(row.readable), row.reasoning, row.reply)


def _agreement(rows: Sequence[Prediction], ratings: Sequence[Rating]) -> dict[str, float]:
    """PLCC, SRCC and MAE, means over data sets. A set whose ratings are all equal is left out."""
    by_domain = []
    for domain in sorted({rating.domain for rating in ratings}):
        pairs = [
            (row.score, r.score)
            for row, r in zip(rows, ratings, strict=True)
            if r.domain == domain and row.score is not None
        ]
        if len({human for _, human in pairs}) > 1:
            predicted, human = zip(*pairs, strict=True)
            by_domain.append([measure(predicted, human) for measure in (plcc, srcc, mae)])
    if not by_domain:
        return {}
    means = np.mean(by_domain, axis=0)
    return {f"validation/{name}": float(mean) for name, mean in zip(("plcc", "srcc", "mae"), means, strict=True)}
