"""How many processes train and what each holds of the model: from accelerate's environment or file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainingArguments

from aesr1.errors import AesError

SHARD_NOTHING, SHARD_OPTIMIZER, SHARD_ALL = "nothing", "optimizer", "all"
STAGES = {0: SHARD_NOTHING, 1: SHARD_OPTIMIZER, 2: SHARD_OPTIMIZER, 3: SHARD_ALL}
"""What DeepSpeed's ZeRO divides among the processes, by its stage (2 divides the gradients as well)."""
STRATEGIES = {
    "FULL_SHARD": SHARD_ALL,
    "SHARD_GRAD_OP": SHARD_OPTIMIZER,  # weights are whole from the forward pass to the end of the backward pass
    "NO_SHARD": SHARD_NOTHING,
    "HYBRID_SHARD": SHARD_ALL,
    "HYBRID_SHARD_ZERO2": SHARD_OPTIMIZER,
}
"""What FSDP 1 divides, by its sharding strategy; accelerate also takes their numbers, from 1, in this order."""


@dataclass(frozen=True)
class Launch:
    """Processes (one for each GPU) and what they divide."""

    processes: int = 1
    shards: str = SHARD_NOTHING  # nothing; optimizer (with gradients: ZeRO-2); all (ZeRO-3, FSDP)
    offload: bool = False  # optimizer and weights are kept in the computer's memory
    deepspeed: bool = False  # which keeps float32 copies of 16-bit weights
    fsdp: bool = False  # which wraps the weights

    def device(self, training: TrainingArguments) -> str:
        """The device that weights are loaded to. If they are divided, the trainer moves the parts to the GPUs."""
        return "cpu" if self.shards == SHARD_ALL or self.fsdp else str(training.device)


def launch_from_environment(training: TrainingArguments) -> Launch:
    """The launch by accelerate's environment variables and the flags --deepspeed and --fsdp."""
    launch = Launch(training.world_size)
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        launch = _by_deepspeed(launch.processes, _environment("ACCELERATE_DEEPSPEED_"))
    elif os.environ.get("ACCELERATE_USE_FSDP") == "true":
        launch = _by_fsdp(launch.processes, _environment("FSDP_"))
    return launch_with_flags(launch, training)


def launch_with_flags(launch: Launch, training: TrainingArguments) -> Launch:
    """The launch changed by the Trainer's flags --deepspeed or --fsdp."""
    if training.deepspeed:
        return _by_deepspeed(launch.processes, {"config_file": training.deepspeed})
    if training.fsdp:  # the Trainer's names: version 2 unless another is given, strategies under reshard_after_forward
        fsdp = {"version": 2, **(training.fsdp_config or {})}
        reshard = fsdp.get("reshard_after_forward", "true" if str(fsdp["version"]) == "2" else "FULL_SHARD")
        more = {"sharding_strategy": reshard, "offload_params": fsdp.get("cpu_offload", False)}
        return _by_fsdp(launch.processes, {**fsdp, "reshard_after_forward": reshard, **more})
    return launch


def launch_from_file(path: Path) -> Launch:
    """The launch by a file for `accelerate launch --config_file`. AesError where the file is not one."""
    try:
        settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind = str(settings["distributed_type"])
        # YAML 1.1 reads an unquoted NO as false; accelerate then starts one process, whatever num_processes says.
        processes = 1 if kind in ("NO", "False") else int(settings["num_processes"])
        deepspeed, fsdp = (dict(settings.get(name) or {}) for name in ("deepspeed_config", "fsdp_config"))
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise AesError(
            f"{path} is not one of accelerate's files: {type(error).__name__} {error}",
            fix="give one of recipes/accelerate/, or what `accelerate config` wrote",
        ) from error
    if processes < 1:
        raise AesError(f"{path} says num_processes: {processes}", fix="write the number of processes")
    if kind == "DEEPSPEED":
        return _by_deepspeed(processes, {key.removeprefix("deepspeed_"): value for key, value in deepspeed.items()})
    if kind == "FSDP":
        return _by_fsdp(processes, {key.removeprefix("fsdp_"): value for key, value in fsdp.items()})
    return Launch(processes)


def _environment(prefix: str) -> dict[str, str]:
    """The variables that accelerate exports under a prefix, by their names in its files."""
    return {name.removeprefix(prefix).lower(): value for name, value in os.environ.items() if name.startswith(prefix)}


def _by_deepspeed(processes: int, settings: Mapping[str, Any]) -> Launch:
    """The launch by accelerate's DeepSpeed settings. A DeepSpeed file overrides them, except for its "auto" values."""
    stage, offload = settings.get("zero_stage", 2), settings.get("offload_optimizer_device", "none")
    file = settings.get("config_file")
    if file and file != "none":
        zero = _zero_of(file)
        in_file = zero.get("stage", 0), (zero.get("offload_optimizer") or {}).get("device", "none")
        stage, offload = (ours if own == "auto" else own for own, ours in zip(in_file, (stage, offload), strict=True))
    try:
        shards = STAGES[int(stage)]
    except (KeyError, TypeError, ValueError) as error:
        raise AesError(f"DeepSpeed's ZeRO stage is {stage!r}", fix="give 0, 1, 2 or 3") from error
    return Launch(processes, shards, str(offload).lower() not in ("none", "null"), deepspeed=True)


def _zero_of(file: Any) -> dict[str, Any]:
    """`zero_optimization` of DeepSpeed's settings: a path from the working folder, JSON, or a dictionary. AesError."""
    try:
        is_path = isinstance(file, str) and not file.lstrip().startswith("{")
        text = Path(file).read_text(encoding="utf-8") if is_path else file
        zero = (text if isinstance(text, dict) else json.loads(text))["zero_optimization"]
        return {**zero, "offload_optimizer": dict(zero.get("offload_optimizer") or {})}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AesError(
            f"{file} does not set DeepSpeed's zero_optimization: {type(error).__name__} {error}",
            fix="give a JSON file with zero_optimization.stage in it (its path counts from the working folder), or one "
            "of recipes/accelerate/, which need none",
        ) from error


def _by_fsdp(processes: int, settings: Mapping[str, Any]) -> Launch:
    """The launch by accelerate's FSDP settings: version 2 has a flag to reshard, version 1 a strategy."""
    if str(settings.get("version", 1)) == "2":
        shards = SHARD_ALL if _true(settings.get("reshard_after_forward", True)) else SHARD_OPTIMIZER
    else:
        strategy = str(settings.get("sharding_strategy", "FULL_SHARD")).upper()
        numbered = dict(enumerate(STRATEGIES.values(), 1))
        kind = numbered.get(int(strategy)) if strategy.isdigit() else STRATEGIES.get(strategy)
        if kind is None:
            raise AesError(f"fsdp_sharding_strategy is {strategy}", fix=f"choose from {', '.join(STRATEGIES)}")
        shards = kind
    return Launch(processes, shards, _true(settings.get("offload_params", False)), fsdp=True)


def _true(value: Any) -> bool:
    return str(value).lower() in ("true", "1", "yes", "y", "t", "on")
