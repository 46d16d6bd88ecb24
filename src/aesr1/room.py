"""Memory that is full, a GPU's or the computer's: what did not fit, and what to lower by how much."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from aesr1.errors import AesError

FULL = re.compile(r"out of memory|allocate memory|Unable to allocate|ALLOC_FAILED|bad_alloc", re.IGNORECASE)
WANTED = re.compile(r"(tried to allocate|unable to allocate) ([\d.]+ \w+)", re.IGNORECASE)
GPU = re.compile(r"CUDA|CUBLAS|HIP|XPU", re.IGNORECASE)
HALF_LORA = "train by LoRA in 16 bits (lora_rank: 32, dtype: bfloat16), which needs a quarter"
DIVIDE = "divide the model among more GPUs (recipes/accelerate/zero3.yaml)"
DRY = "--dry_run says how much a run needs"


def is_full(error: BaseException) -> bool:
    """Whether an error says that memory is full, in the words of torch, CUDA, numpy or the operating system."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or FULL.search(str(error)) is not None


@contextmanager
def within_memory(doing: str, fix: str, *, host_fix: str | None = None) -> Iterator[None]:
    """An AesError in place of a full memory's error. `host_fix`: where it is the computer's, not a GPU's."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        text = str(error)
        if not is_full(error):
            raise
        on_gpu = isinstance(error, torch.OutOfMemoryError) or GPU.search(text) is not None
        wanted = WANTED.search(text)
        much = f": {wanted[1].lower()} {wanted[2]}" if wanted else ""
        raise AesError(
            f"the {'GPU' if on_gpu else 'computer'}'s memory is full while {doing}{much}",
            fix=fix if on_gpu or host_fix is None else host_fix,
        ) from error


def smaller_start(config: Any, training: Any) -> str:
    """What to lower so that the model, and the reference beside it, find room."""
    ways = []
    if getattr(training, "beta", 0) and not config.lora_rank:
        ways.append("set beta: 0, which keeps no second copy of the model")
    if not config.lora_rank:
        ways += [HALF_LORA, DIVIDE]
    elif config.dtype == "float32":
        ways.append("set dtype: bfloat16, which halves the weights")
    else:
        ways.append("take a smaller --model")
    return (
        f"{', or '.join(ways)}, with another --output_dir (this one is bound to its settings); nvidia-smi shows what "
        f"else is on the GPU, and {DRY}"
    )


def fewer_copies(config: Any) -> str:
    """What to do where the computer cannot hold the model that each of its processes reads."""
    half = " dtype: bfloat16 under DeepSpeed or LoRA halves it," if config.dtype == "float32" else ""
    return f"each process reads the whole model:{half} launch fewer on this machine, or end what else runs there; {DRY}"


def smaller_step(training: Any) -> str:
    """What to lower so that a step fits: first what changes nothing but the time it takes."""
    micro_batch, rounds = training.per_device_train_batch_size, training.gradient_accumulation_steps
    where = "the same command then goes on from the last checkpoint"
    if not training.gradient_checkpointing:
        return f"set gradient_checkpointing: true; {where}"
    if micro_batch > 1:
        smaller = next(size for size in range(micro_batch // 2, 0, -1) if micro_batch % size == 0)
        times = micro_batch // smaller
        asked = getattr(training, "steps_per_generation", None) or rounds
        generation = f" and steps_per_generation from {asked} to {asked * times}" if asked != rounds else ""
        return (
            f"lower per_device_train_batch_size from {micro_batch} to {smaller} and raise gradient_accumulation_steps "
            f"from {rounds} to {rounds * times}{generation}, which is the same step; {where}"
        )
    return f"halve max_pixels or the length of replies, {HALF_LORA}, or {DIVIDE}, each in another output folder; {DRY}"


def more_host_memory(training: Any) -> str:
    """What to do where it is the computer's memory that training on GPUs fills."""
    workers = training.dataloader_num_workers
    fewer = f"lower dataloader_num_workers from {workers} to {workers // 2}, " if workers else ""
    return (
        f"{fewer}launch without offloading (recipes/accelerate/zero3.yaml) or with fewer processes a machine, or end "
        "what else runs there; the same command then goes on from the last checkpoint"
    )


def smaller_validation(batch: int) -> str:
    """What to lower so that a validation fits."""
    where = "the same command then goes on from the last checkpoint"
    if batch > 1:
        return f"lower validate_batch from {batch} to {batch // 2}; {where}"
    return f"set validate_every: 0 and judge checkpoints with `aesr1 eval`; {where}"
