"""The text of `aesr1 rapo --dry_run`."""

from __future__ import annotations

from collections.abc import Sequence

from trl import GRPOConfig

from aesr1.rapo.reward_functions import RewardSettings
from aesr1.rapo.settings import RapoConfig, images_compared, passes_of, rows_of_process
from aesr1.training.compute_estimate import RunWork
from aesr1.training.dry_run import format_plan
from aesr1.training.launch import Launch
from aesr1.training.memory_estimate import StepWork
from aesr1.training.model_summary import summarize_model
from aesr1.training.schedule import schedule
from aesr1.training.settings import ModelSettings


def describe_run(
    config: RapoConfig,
    rewards: RewardSettings,
    settings: ModelSettings,
    training: GRPOConfig,
    launch: Launch,
    *,
    domains: Sequence[str],
) -> str:
    """The run on training images of these data sets, one name an image: what is compared, batches, steps, memory."""
    replies = training.num_generations or 1
    rows = rows_of_process(training)
    planned = schedule(training, passes_of(rewards, training, launch, domains))
    model = summarize_model(settings, training, launch)
    prompt, longest = sum(model.prompt), training.max_completion_length or 0
    groups, rest = divmod(training.per_device_train_batch_size, replies)
    shared = groups * (prompt + replies * (longest + 1))  # picture and prompt once for all replies
    read_once = config.read_once and not rest
    work = StepWork(
        at_once=shared if read_once else training.per_device_train_batch_size * (prompt + longest),
        tokens=prompt + longest,
        rollout=rows,
        reference=bool(training.beta) and not settings.lora_rank,
        checkpointing=training.gradient_checkpointing,
        autocast=training.bf16,
        validation=min(config.validate_batch, config.validate_images) if config.validate_every else 0,
    )
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps * launch.processes
    whole = RunWork(
        groups=planned.steps * batch / replies,
        replies=replies,
        prompt=prompt,
        reply=longest,
        read_once=read_once,
        checkpointing=training.gradient_checkpointing,
        iterations=training.num_iterations,
        rollout=rows,
        forwards=bool(training.beta) + _needs_old_log_probs(training),
        by_engine=training.use_vllm,
    )
    everywhere = rows * launch.processes // replies
    compared = images_compared(rewards, training, launch)
    rounds = training.gradient_accumulation_steps
    lines = [
        f"images: {len(domains):,} to train on; {everywhere} at a time with {replies} replies each, of which "
        f"{compared} are compared (comparison_scope: {rewards.comparison_scope}); {batch // replies} a step",
        f"micro-batch: {training.per_device_train_batch_size} replies, {rounds} times a step",
    ]
    return format_plan(model, work, whole, launch, training, planned=planned, lines=lines)


def _needs_old_log_probs(training: GRPOConfig) -> bool:
    """Whether TRL computes the policy's log-probabilities before training on them.

    It does where a rollout and an optimizer step do not end together, and to correct for vLLM's own.
    """
    every = (training.steps_per_generation or 1) * training.num_iterations
    corrected = training.use_vllm and training.vllm_importance_sampling_correction
    return bool(corrected or training.gradient_accumulation_steps % every)
