"""Resuming a run: the last complete checkpoint, and which settings may change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import (
    AutoModelForImageTextToText,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from aesr1.errors import AesError
from aesr1.model.checkpoint import STAMP, check_stamp
from aesr1.outputs import require_same_settings
from aesr1.terminal import say
from aesr1.training.launch import Launch

MAY_CHANGE = frozenset({"validate_on", "validate_every", "validate_images", "validate_batch", "min_readable"})
"""Settings of a stage that do not change its result."""

LOGGING = """
    output_dir run_name project report_to disable_tqdm logging_strategy logging_steps logging_first_step
    log_on_each_node logging_nan_inf_filter log_level log_level_replica log_completions log_multimodal
    num_completions_to_print log_unique_prompts log_completions_hub_repo include_num_input_tokens_seen
    skip_memory_metrics debug trackio_space_id trackio_bucket_id trackio_static_space_id push_to_hub hub_token
    hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision
"""
SAVING = """
    save_strategy save_steps save_total_limit save_only_model save_on_each_node enable_jit_checkpoint
    resume_from_checkpoint do_train do_eval do_predict
"""
EVALUATION = """
    eval_strategy eval_steps eval_delay eval_on_start eval_do_concat_batches eval_use_gather_object
    eval_accumulation_steps per_device_eval_batch_size prediction_loss_only include_for_metrics batch_eval_metrics
    bf16_full_eval fp16_full_eval num_generations_eval eval_packing
"""
MACHINE = """
    use_cpu local_rank dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers
    dataloader_prefetch_factor dataloader_multiprocessing_context dataset_num_proc ddp_backend ddp_timeout
    ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_find_unused_parameters gradient_checkpointing
    gradient_checkpointing_kwargs activation_checkpointing activation_checkpointing_kwargs activation_offloading
    torch_empty_cache_steps ds3_gather_for_generation vllm_server_base_url vllm_server_host vllm_server_port
    vllm_server_timeout vllm_group_port vllm_gpu_memory_utilization vllm_enable_sleep_mode
    vllm_tensor_parallel_size
"""
TRAINER_MAY_CHANGE = frozenset((LOGGING + SAVING + EVALUATION + MACHINE).split())
"""Settings of TRL and transformers that may change: logging, checkpoints, TRL's own evaluation (not used here),
machines, memory and speed. All others must stay the same, also new ones."""

RUN_LENGTH = ("max_steps", "num_train_epochs")
MICRO_BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation")


def require_same_run(output: Path, settings: Mapping[str, Any], training: TrainingArguments) -> None:
    """Record the settings of a run, ours and TRL's. AesError where a resumed run has other ones."""
    flat = _is_constant_rate(settings, training)
    fixed = {name: value for name, value in _as_json(training).items() if name not in TRAINER_MAY_CHANGE}
    if flat:
        fixed = {name: value for name, value in fixed.items() if name not in RUN_LENGTH}
    if fixed.get("loss_type") != "bnpo":  # which weights replies by their micro-batch
        micro, rounds = (int(fixed[name]) for name in MICRO_BATCH[:2])
        fixed = {name: value for name, value in fixed.items() if name not in MICRO_BATCH}
        fixed[f"{MICRO_BATCH[0]} × {MICRO_BATCH[1]}"] = micro * rounds
    planned = (
        "the learning rate (or sigma) depends on the run's length: give the same length to resume, or train on "
        "from its weights (--model the finished run, another --output_dir); a run's length may change under "
        "lr_scheduler_type: constant alone"
    )
    require_same_settings(output, settings, training=fixed, free=MAY_CHANGE, fixes=dict.fromkeys(RUN_LENGTH, planned))


def _is_constant_rate(settings: Mapping[str, Any], training: TrainingArguments) -> bool:
    """Whether no step depends on the length of the run."""
    kind = str(getattr(training.lr_scheduler_type, "value", training.lr_scheduler_type))
    warmup_is_share = kind == "constant_with_warmup" and 0 < training.warmup_steps < 1
    moving = settings.get("sigma_end") is not None
    return kind in ("constant", "constant_with_warmup") and not warmup_is_share and not moving


def _as_json(training: TrainingArguments) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(training.to_dict(), default=str))
    return plain


NOT_DIVIDED = "neither FSDP nor DeepSpeed"


def resume_point(output: Path, launch: Launch) -> str | None:
    """The last complete checkpoint of an unfinished run; None for a new run.

    AesError for a finished run, for another number of processes (the order of images would change), and for weights
    that were divided in another way.
    """
    if (output / STAMP).is_file():
        raise AesError(f"{output} holds a finished run", fix="choose another output folder; nothing is overwritten")
    if not output.is_dir():
        return None
    whole = complete_checkpoints(output)
    if not whole:
        return None
    last = get_last_checkpoint(str(output))
    newest = whole[-1]
    check_stamp(newest)
    anew = f"start a new run from its weights: --model {newest} and another --output_dir"
    before = len(list(newest.glob("rng_state*.pth")))
    if not before:
        raise AesError(
            f"{newest} holds weights alone (save_only_model: true): it has no optimizer state",
            fix=f"{anew}; without save_only_model a run can resume",
        )
    if before != launch.processes:
        raise AesError(
            f"{newest} was written by {before} processes, and now there are {launch.processes}",
            fix=f"launch with --num_processes {before}, or {anew}",
        )
    engine = "DeepSpeed" if launch.deepspeed else "FSDP" if launch.fsdp else NOT_DIVIDED
    if _engine(newest) != engine:
        raise AesError(
            f"{newest} was written under {_engine(newest)}, and this run is under {engine}",
            fix=f"launch it as before, or {anew}",
        )
    if last is not None and Path(last) != newest:
        say(f"{last} is unfinished and ignored; resuming from {newest}")
    return str(newest)


def _engine(checkpoint: Path) -> str:
    """How the weights of a checkpoint were divided, by its files."""
    if (checkpoint / "latest").is_file():
        return "DeepSpeed"
    return "FSDP" if any(checkpoint.glob("pytorch_model_fsdp*")) else NOT_DIVIDED


class ResumableTrainer:
    """For a Trainer: resumes with the weights of a checkpoint.

    transformers saves Qwen2.5-VL with the names of its hub repository but resumes with the names in memory. Nothing
    matches, and training silently continues from the first weights (QwenLM/Qwen3-VL#1763, ms-swift#7947).
    """

    is_fsdp_enabled: bool
    model: Any

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: TRL's model card would lack our settings; run.json has all."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        target = self.model if model is None else model
        if (
            self.is_fsdp_enabled or not (Path(resume_from_checkpoint) / "config.json").is_file()
        ):  # sharded weights, or an adapter
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        saved = AutoModelForImageTextToText.from_pretrained(
            resume_from_checkpoint, dtype=target.dtype, trust_remote_code=False
        )
        target.load_state_dict(saved.state_dict())


def complete_checkpoints(output: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    whole = (path for path in output.glob("checkpoint-*") if (path / STAMP).is_file())
    return sorted(whole, key=lambda path: int(path.name.split("-")[1]))
