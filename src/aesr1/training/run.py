"""What cold start and RAPO share: begin a run, train, write the result."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainingArguments

from aesr1.errors import AesError
from aesr1.model.checkpoint import stamp_checkpoint
from aesr1.model.load import Vlm, load, load_config
from aesr1.model.lora_checkpoint import is_lora_checkpoint
from aesr1.model.out_of_memory import explain_out_of_memory
from aesr1.outputs import write_run
from aesr1.training.callbacks import MODEL_CARD, EndAtLength, LengthReachedError, ProgressBar, RunLog
from aesr1.training.launch import SHARD_ALL, Launch
from aesr1.training.memory_advice import (
    advice_for_host_loading,
    advice_for_host_step,
    advice_for_loading,
    advice_for_step,
)
from aesr1.training.memory_estimate import GIB
from aesr1.training.parameters import freeze_vision, save_merged
from aesr1.training.resume import complete_checkpoints, require_same_run
from aesr1.training.settings import ModelSettings
from aesr1.training.vision_tower import drop_features, keep_batch_norm, keep_features


def begin_run(model: ModelSettings, training: TrainingArguments, launch: Launch, *, settings: Mapping[str, Any]) -> Vlm:
    """Load the model and freeze its vision tower where it is not trained.

    `settings`: all settings of the stage, which the output folder is bound to. AesError where it has other ones.
    """
    if launch.shards == SHARD_ALL and is_lora_checkpoint(model.model):
        raise AesError(
            f"{model.model} is a LoRA adapter, and the launch divides the weights among the processes (ZeRO-3 or FSDP)",
            fix="start from a finished run's folder, a whole model, or launch with recipes/accelerate/zero2.yaml",
        )
    read = load_config(model.model, max_pixels=model.max_pixels)  # before the folder is bound: the name may be wrong
    require_same_run(Path(training.output_dir or "."), settings, training)
    with explain_out_of_memory(
        "loading the model", advice_for_loading(model, training), host_fix=advice_for_host_loading(model)
    ):
        vlm = load(
            model.model,
            max_pixels=model.max_pixels,
            device=launch.device(training),
            dtype=model.dtype,
            attention=model.attention,
            read=read,
        )
    keep_batch_norm(vlm.model)
    if model.freeze_vision or model.lora_rank:
        freeze_vision(vlm.model, train_projector=model.train_projector)
        keep_features(vlm.model)
    if model.picture_dropout:
        drop_features(vlm.model, model.picture_dropout)
    vlm.model.train()
    return vlm


def train(trainer: Any, progress: ProgressBar, *, resume: str | None) -> None:
    """Train with our progress bar and log. The bar is stopped in any case."""
    if trainer.args.device.type == "cpu":
        _keep_freed_memory()
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(RunLog(Path(trainer.args.output_dir)))
    trainer.add_callback(EndAtLength())
    host = None if trainer.args.device.type == "cpu" else advice_for_host_step(trainer.args)
    try:
        with explain_out_of_memory("training", advice_for_step(trainer.args), host_fix=host):
            trainer.train(resume_from_checkpoint=resume)
    except LengthReachedError:
        pass
    except RuntimeError as error:
        if "probability tensor" not in str(error):
            raise
        last = complete_checkpoints(Path(trainer.args.output_dir))
        where = f"; {last[-1]} is the last whole checkpoint" if last else ""
        raise AesError(
            "the model's probabilities are NaN: training has diverged",
            fix=f"start again with half the learning_rate in another output folder{where}",
        ) from error
    finally:
        progress.bar.stop()


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step: 7 % faster, 17 % more memory (bench/freed_memory.py).

    By default it returns every large tensor to the kernel, which must clear the pages at the next use.
    """
    trim_threshold, mmap_max, never = -1, -4, 2**31 - 1  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, never)


def finish_run(trainer: Any, processor: Any, settings: Mapping[str, Any], *, stage: str, started: float) -> Path:
    """Write the trained model, its processor and run.json, then the stamp. Returns the folder."""
    output = Path(trainer.args.output_dir)
    model = trainer.accelerator.unwrap_model(trainer.model)
    last = complete_checkpoints(output)
    again = f"; the same command then resumes from {last[-1]} and only writes the end" if last else ""
    size = sum(parameter.numel() for parameter in model.parameters()) * 4 / GIB
    with explain_out_of_memory("writing the model", f"free {size:.1f} GiB of the computer's memory{again}"):
        if not hasattr(model, "merge_and_unload"):
            trainer.save_model(str(output))
        elif trainer.is_world_process_zero():
            save_merged(model, output)
            (output / "adapter" / MODEL_CARD).unlink(missing_ok=True)
    if trainer.is_world_process_zero():
        processor.save_pretrained(output)
        write_run(output, stage, settings, started=started, training=trainer.args.to_sanitized_dict())
        stamp_checkpoint(output, stage=stage)
    return output
