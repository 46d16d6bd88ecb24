"""What both training stages share: rows for TRL, how a run begins, resumes, goes and ends."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image
from transformers import AutoModelForImageTextToText, PrinterCallback, ProgressCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from aesr1.adapters import holds_adapter
from aesr1.binding import bind
from aesr1.contract import PROMPT
from aesr1.errors import AesError
from aesr1.estimate import GIB
from aesr1.folders import write_run
from aesr1.images import open_image
from aesr1.launch import ALL, Launch
from aesr1.room import fewer_copies, more_host_memory, smaller_start, smaller_step, within_memory
from aesr1.trainable import freeze_vision, save_merged
from aesr1.vlm import STAMP, Vlm, check_stamp, configured, load, stamp_checkpoint
from aesr1.watch import CARD, Progressing, Watching, whole_checkpoints

WHOLE_MODELS = "neither FSDP nor DeepSpeed"


def as_dataset(rows: Sequence[dict[str, Any]], *, max_pixels: int) -> Dataset:
    """A data set for TRL: each row's `image` path is opened and shrunk when it is fetched, never stored.

    GRPO fetches an image K times in a row, and again for every micro-batch: the last pictures are kept.
    """

    @lru_cache(maxsize=1024)
    def opened(path: str) -> Image.Image:
        return open_image(path, max_pixels=max_pixels)

    def fetch(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        size = len(columns["image"])
        return {
            **columns,
            "image": [opened(path) for path in columns["image"]],
            "prompt": [[{"role": "user", "content": PROMPT}] for _ in range(size)],
        }

    return Dataset.from_list(list(rows)).with_transform(fetch)


def check_images(paths: Sequence[str]) -> None:
    """AesError that counts the pictures that are missing or are none and names the first, before a model loads."""
    bad = [path for path in paths if not _is_picture(path)]
    if bad:
        raise AesError(
            f"{len(bad)} of {len(paths):,} images are missing or no pictures, first: {bad[0]}",
            fix="put them back, or make the file of rows again without them",
        )


def _is_picture(path: str) -> bool:
    """Only the head is read: decoding 15,000 pictures would take minutes."""
    try:
        with Image.open(path):
            return True
    except (OSError, ValueError, SyntaxError):
        return False


def begin(config: Any, training: TrainingArguments, launch: Launch) -> Vlm:
    """Bind the run's folder to a stage's settings and load its model, the eyes frozen where they are not trained."""
    if launch.shards == ALL and holds_adapter(config.model):
        raise AesError(
            f"{config.model} is a LoRA adapter, and the weights are to be divided among the processes (ZeRO-3 or FSDP)",
            fix="begin from a finished run's folder, a whole model, or launch with recipes/accelerate/zero2.yaml",
        )
    read = configured(config.model, max_pixels=config.max_pixels)  # a name that is none should not bind the folder
    bind(Path(training.output_dir or "."), config, training)
    with within_memory("loading the model", smaller_start(config, training), host_fix=fewer_copies(config)):
        vlm = load(
            config.model,
            max_pixels=config.max_pixels,
            device=launch.device(training),
            dtype=config.dtype,
            attention=config.attention,
            read=read,
        )
    if config.freeze_vision or config.lora_rank:
        freeze_vision(vlm.model)
    vlm.model.train()
    return vlm


def resume_point(output: Path, launch: Launch) -> str | None:
    """The last whole checkpoint of an unfinished run, None for a new one.

    AesError for a finished run, for one of another number of processes (its images would come in another order), and
    for one whose weights were divided by other means.
    """
    if (output / STAMP).is_file():
        raise AesError(f"{output} holds a finished run", fix="choose another output folder; nothing is overwritten")
    if not output.is_dir():
        return None
    whole = whole_checkpoints(output)
    if not whole:
        return None
    last = get_last_checkpoint(str(output))
    newest = whole[-1]
    check_stamp(newest)
    anew = f"begin anew from its weights: --model {newest} and another --output_dir"
    before = len(list(newest.glob("rng_state*.pth")))
    if not before:
        raise AesError(
            f"{newest} holds weights alone (save_only_model: true): the optimizer's state is lost",
            fix=f"{anew}; without save_only_model a run can go on",
        )
    if before != launch.processes:
        raise AesError(
            f"{newest} was written by {before} processes, and now there are {launch.processes}",
            fix=f"launch with --num_processes {before}, or {anew}",
        )
    engine = "DeepSpeed" if launch.deepspeed else "FSDP" if launch.fsdp else WHOLE_MODELS
    if _engine(newest) != engine:
        raise AesError(
            f"{newest} was written under {_engine(newest)}, and this run is under {engine}",
            fix=f"launch it as it was begun, or {anew}",
        )
    if last is not None and Path(last) != newest:
        print(f"{last} is unfinished and left out; going on from {newest}", file=sys.stderr)
    return str(newest)


def _engine(checkpoint: Path) -> str:
    """What divided the weights of a checkpoint: each leaves files of its own, and reads no other's."""
    if (checkpoint / "latest").is_file():
        return "DeepSpeed"
    return "FSDP" if any(checkpoint.glob("pytorch_model_fsdp*")) else WHOLE_MODELS


class Resuming:
    """For a Trainer: a checkpoint's weights under their saved names.

    transformers saves Qwen2.5-VL under the names of its hub repository but resumes by the names in memory, so that
    nothing matches and training silently goes on from the first weights (QwenLM/Qwen3-VL#1763, ms-swift#7947).
    """

    is_fsdp_enabled: bool
    model: Any

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: TRL's would say of a run what is TRL's, and nothing of ours; `run.json` tells all."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        target = self.model if model is None else model
        if (
            self.is_fsdp_enabled or not (Path(resume_from_checkpoint) / "config.json").is_file()
        ):  # sharded, or an adapter
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        saved = AutoModelForImageTextToText.from_pretrained(resume_from_checkpoint, dtype=target.dtype)
        target.load_state_dict(saved.state_dict())


def run(trainer: Any, progress: Progressing, *, resume: str | None) -> None:
    """Train with our bar in place of the stock ones, and watched; the bar is taken away whatever happens."""
    if trainer.args.device.type == "cpu":
        _keep_freed_memory()
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Watching(Path(trainer.args.output_dir)))
    host = None if trainer.args.device.type == "cpu" else more_host_memory(trainer.args)
    try:
        with within_memory("training", smaller_step(trainer.args), host_fix=host):
            trainer.train(resume_from_checkpoint=resume)
    except RuntimeError as error:
        if "probability tensor" not in str(error):
            raise
        last = whole_checkpoints(Path(trainer.args.output_dir))
        where = f"; {last[-1]} is the last whole checkpoint" if last else ""
        raise AesError(
            "the model gives no probabilities any more (NaN): training has diverged",
            fix=f"begin again with half the learning_rate in another output folder{where}",
        ) from error
    finally:
        progress.bar.stop()


def _keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one: 7 % faster, 17 % more memory (bench/freed_memory.py).

    By default it hands every large tensor back to the kernel, which has to clear each page again at the next use.
    """
    trim_threshold, mmap_max, never = -1, -4, 2**31 - 1  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, never)


def finish(trainer: Any, processor: Any, config: Any, *, stage: str, started: float) -> Path:
    """Write the trained model, its processor and `run.json`; stamped last. The folder."""
    output = Path(trainer.args.output_dir)
    model = trainer.accelerator.unwrap_model(trainer.model)
    last = whole_checkpoints(output)
    again = f"; the same command then goes on from {last[-1]} and does the end alone" if last else ""
    size = sum(parameter.numel() for parameter in model.parameters()) * 4 / GIB
    with within_memory("writing the model", f"free {size:.1f} GiB of the computer's memory{again}"):
        if not hasattr(model, "merge_and_unload"):
            trainer.save_model(str(output))
        elif trainer.is_world_process_zero():
            save_merged(model, output)
            (output / "adapter" / CARD).unlink(missing_ok=True)
    if trainer.is_world_process_zero():
        processor.save_pretrained(output)
        write_run(output, stage, config, started=started, training=trainer.args.to_sanitized_dict())
        stamp_checkpoint(output, stage=stage)
    return output
