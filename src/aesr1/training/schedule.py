"""The number of steps and of checkpoints of a run, counted as transformers does."""

from __future__ import annotations

import math
from typing import NamedTuple

from transformers import TrainingArguments


class Schedule(NamedTuple):
    """The number of steps and of checkpoints."""

    steps: int
    checkpoints: int


def schedule(training: TrainingArguments, passes: int) -> Schedule:
    """Steps and checkpoints of a run; `passes` are micro-batches of a process in an epoch."""
    an_epoch: int = max(1, math.ceil(passes / training.gradient_accumulation_steps))
    steps = training.max_steps if training.max_steps > 0 else math.ceil(float(training.num_train_epochs) * an_epoch)
    if training.save_strategy == "epoch":
        return Schedule(steps, math.ceil(steps / an_epoch))
    if training.save_strategy != "steps":
        return Schedule(steps, 0)
    every = steps_between_saves(training, steps)
    return Schedule(steps, math.ceil(steps / every) if every else 1)  # the last step is always saved


def steps_between_saves(training: TrainingArguments, steps: int) -> int:
    """Steps from one checkpoint to the next: save_steps below 1 is a share of the whole run."""
    return math.ceil(training.save_steps * steps) if training.save_steps < 1 else int(training.save_steps)
