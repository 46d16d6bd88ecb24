"""How many processes train and what of the model each holds: as accelerate launched us, or as a file of its says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainingArguments

from aesr1.errors import AesError

WHOLE, OPTIMIZER, ALL = "nothing", "optimizer", "all"
SHARDS = {0: WHOLE, 1: OPTIMIZER, 2: OPTIMIZER, 3: ALL}
"""What DeepSpeed's ZeRO divides among the processes, by its stage (2 divides the gradients as well)."""


@dataclass(frozen=True)
class Launch:
    """Processes (one a GPU) and what they divide among them."""

    processes: int = 1
    shards: str = WHOLE  # nothing; optimizer (with gradients: ZeRO-2); all (ZeRO-3, FSDP)
    offload: bool = False  # optimizer and weights rest in the computer's memory
    deepspeed: bool = False  # which keeps float32 copies of 16-bit weights

    def device(self, training: TrainingArguments) -> str:
        """Where weights are loaded to: where they are to be divided, the trainer brings each GPU its part."""
        return "cpu" if self.shards == ALL else str(training.device)


def launched(processes: int) -> Launch:
    """As accelerate says in the environment of the processes that it launches."""
    environment = os.environ
    if environment.get("ACCELERATE_USE_DEEPSPEED") == "true":
        stage = int(environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", 2))
        offload = environment.get("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "none") != "none"
        return Launch(processes, SHARDS.get(stage, WHOLE), offload, deepspeed=True)
    if environment.get("ACCELERATE_USE_FSDP") == "true":
        return Launch(processes, ALL, environment.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true")
    return Launch(processes)


def from_file(path: Path) -> Launch:
    """As a file for `accelerate launch --config_file` says. AesError where it is none."""
    try:
        settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        processes = int(settings["num_processes"])
        kind = str(settings["distributed_type"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise AesError(
            f"{path} is no file of accelerate's: {type(error).__name__} {error}",
            fix="give one of recipes/accelerate/, or what `accelerate config` wrote",
        ) from error
    if kind == "DEEPSPEED":
        zero = settings.get("deepspeed_config") or {}
        offload = str(zero.get("offload_optimizer_device", "none")) != "none"
        return Launch(processes, SHARDS.get(int(zero.get("zero_stage", 2)), WHOLE), offload, deepspeed=True)
    if kind == "FSDP":
        return Launch(processes, ALL, bool((settings.get("fsdp_config") or {}).get("fsdp_offload_params")))
    return Launch(processes)
