"""What to lower when memory is full: one text for each moment of a run."""

from __future__ import annotations

from typing import Any

from aesr1.training.settings import ModelSettings

HALF_LORA = "train by LoRA in 16 bits (lora_rank: 32, dtype: bfloat16), which needs a quarter"


DIVIDE = "divide the model among more GPUs (recipes/accelerate/zero3.yaml)"


DRY = "--dry_run prints how much a run needs"


def advice_for_loading(model: ModelSettings, training: Any) -> str:
    """What to lower so that the model and the reference fit."""
    ways = []
    if getattr(training, "beta", 0) and not model.lora_rank:
        ways.append("set beta: 0, which keeps no second copy of the model")
    if not model.lora_rank:
        ways += [HALF_LORA, DIVIDE]
    elif model.dtype == "float32":
        ways.append("set dtype: bfloat16, which halves the weights")
    else:
        ways.append("take a smaller --model")
    return (
        f"{', or '.join(ways)}, with another --output_dir (this one has recorded its settings); nvidia-smi shows what "
        f"else is on the GPU, and {DRY}"
    )


def advice_for_host_loading(model: ModelSettings) -> str:
    """What to do where the computer cannot hold a model for each process."""
    half = " dtype: bfloat16 under DeepSpeed or LoRA halves it," if model.dtype == "float32" else ""
    return f"each process reads the whole model:{half} launch fewer on this machine, or end what else runs there; {DRY}"


def advice_for_step(training: Any) -> str:
    """What to lower so that a step fits; first settings that only change the time."""
    micro_batch, rounds = training.per_device_train_batch_size, training.gradient_accumulation_steps
    where = "the same command then resumes from the last checkpoint"
    if not training.gradient_checkpointing:
        return f"set gradient_checkpointing: true; {where}"
    if micro_batch > 1:
        smaller = next(size for size in range(micro_batch // 2, 0, -1) if micro_batch % size == 0)
        times = micro_batch // smaller
        steps = getattr(training, "steps_per_generation", None) or rounds
        generation = f" and steps_per_generation from {steps} to {steps * times}" if steps != rounds else ""
        return (
            f"lower per_device_train_batch_size from {micro_batch} to {smaller} and raise gradient_accumulation_steps "
            f"from {rounds} to {rounds * times}{generation}, which is the same step; {where}"
        )
    return f"halve max_pixels or the length of replies, {HALF_LORA}, or {DIVIDE}, each in another output folder; {DRY}"


def advice_for_host_step(training: Any) -> str:
    """What to do where training on GPUs fills the computer's memory."""
    workers = training.dataloader_num_workers
    fewer = f"lower dataloader_num_workers from {workers} to {workers // 2}, " if workers else ""
    return (
        f"{fewer}launch without offloading (recipes/accelerate/zero3.yaml) or with fewer processes a machine, or end "
        "what else runs there; the same command then resumes from the last checkpoint"
    )


def advice_for_validation(batch: int) -> str:
    """What to lower so that a validation fits."""
    where = "the same command then resumes from the last checkpoint"
    if batch > 1:
        return f"lower validate_batch from {batch} to {batch // 2}; {where}"
    return f"set validate_every: 0 and evaluate checkpoints with `aesr1 eval`; {where}"
