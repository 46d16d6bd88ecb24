"""What a RAPO run would be: `aesr1 rapo --dry_run`."""

from __future__ import annotations

from collections.abc import Sequence

from trl import GRPOConfig

from aesr1.rapo.settings import RapoConfig, passes_of
from aesr1.records import Rating
from aesr1.training.dry_run import format_plan, schedule, summarize_model
from aesr1.training.launch import Launch
from aesr1.training.memory_estimate import StepWork


def describe_run(config: RapoConfig, training: GRPOConfig, launch: Launch, ratings: Sequence[Rating]) -> str:
    """The run on these training ratings in words and numbers."""
    replies = training.num_generations or 1
    rows = training.per_device_train_batch_size * (training.steps_per_generation or 1)
    planned = schedule(training, passes_of(training, launch, len(ratings)))
    model = summarize_model(config, training, launch)
    asked, longest = sum(model.prompt), training.max_completion_length or 0
    groups, rest = divmod(training.per_device_train_batch_size, replies)
    shared = groups * (asked + replies * (longest + 1))  # a picture and its prompt once for all replies
    work = StepWork(
        at_once=training.per_device_train_batch_size * (asked + longest) if rest or not config.read_once else shared,
        tokens=asked + longest,
        rollout=rows,
        reference=bool(training.beta) and not config.lora_rank,
        checkpointing=training.gradient_checkpointing,
        autocast=training.bf16,
        validation=min(config.validate_batch, config.validate_images) if config.validate_every else 0,
    )
    everywhere = rows * launch.processes // replies
    meeting = everywhere if config.comparison_scope == "global" else rows // replies
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps * launch.processes
    rounds = training.gradient_accumulation_steps
    lines = [
        f"images: {len(ratings):,} to train on; {everywhere} at a time with {replies} replies each, of which {meeting} "
        f"meet in the ranking (comparison_scope: {config.comparison_scope}); {batch // replies} a step",
        f"micro-batch: {training.per_device_train_batch_size} replies, {rounds} times a step",
    ]
    return format_plan(model, work, launch, training, planned=planned, lines=lines)
