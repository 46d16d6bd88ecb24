"""Validation during training: scores held-out images with the current model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from aesr1.errors import AesError
from aesr1.metrics import mae, plcc, srcc
from aesr1.model.load import Vlm
from aesr1.model.out_of_memory import explain_out_of_memory
from aesr1.model.predict import PredictSettings, predict
from aesr1.records import Appender, Prediction, Rating, SampledReply
from aesr1.training.callbacks import drop_rows_after
from aesr1.training.memory_advice import advice_for_validation

KEPT_REPLIES = 6
"""Number of images whose replies are kept at every validation."""


def validation_ratings(ratings: Sequence[Rating], *, split: str, every: int, images: int) -> list[Rating]:
    """A fixed random sample of the validation split, the same at every validation and after a resume."""
    rows = [rating for rating in ratings if rating.split == split]
    if not every:
        return []
    if not rows:
        raise AesError(
            f"there are no ratings of split {split!r} to validate on",
            fix="set validate_on to an existing split, or validate_every: 0 for no validation",
        )
    chosen = np.random.default_rng(0).permutation(len(rows))[:images]
    return [rows[i] for i in sorted(chosen)]


class Validation(TrainerCallback):  # type: ignore[misc]
    """Scores held-out images with the current model and logs PLCC, SRCC, MAE and the share of readable replies.

    Replies about a few of them are appended to replies.jsonl.
    """

    def __init__(
        self, trainer: Any, vlm: Vlm, ratings: Sequence[Rating], *, every: int, batch_size: int, max_new_tokens: int
    ) -> None:
        self.trainer, self.vlm, self.ratings, self.every = trainer, vlm, ratings, every
        self.settings = PredictSettings(batch_size=batch_size, max_new_tokens=max_new_tokens)
        self.replies = Path(trainer.args.output_dir) / "replies.jsonl"

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Keep a killed run's replies up to its checkpoint."""
        if state.is_world_process_zero:
            drop_rows_after(self.replies, state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Validate every `every` steps. Random states are restored, so that training does not depend on it.

        All processes do the same: generating on one of them would hang with sharded weights.
        """
        if state.global_step % self.every:
            return
        device = args.device
        # without a list torch keeps the state of every GPU, with a warning
        gpus = [] if device.type == "cpu" else [device]
        kind = "cuda" if device.type == "cpu" else device.type
        advice = advice_for_validation(self.settings.batch_size)
        with torch.random.fork_rng(gpus, device_type=kind), explain_out_of_memory("validating", advice):
            self.vlm.model.eval()
            rows = list(predict(self.vlm, [rating.image for rating in self.ratings], self.settings))
            self.vlm.model.train()
        figures = {
            "validation/readable": sum(bool(row.readable) for row in rows) / len(rows),
            **_agreement(rows, self.ratings),
        }
        should_log = control.should_log
        Trainer.log(self.trainer, figures)  # not GRPOTrainer's, which would reset its averages
        control.should_log = should_log  # a log resets this flag
        if state.is_world_process_zero:
            with Appender(self.replies) as file:
                pairs = zip(rows[:KEPT_REPLIES], self.ratings[:KEPT_REPLIES], strict=True)
                file.append(*(_sampled_reply(state.global_step, row, rating) for row, rating in pairs))


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
