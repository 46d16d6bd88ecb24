"""What both training stages share: rows for TRL, the frozen eyes, resuming, whole checkpoints, a progress bar."""

from __future__ import annotations

import ctypes
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import (
    AutoModelForImageTextToText,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint
from trl import TrlParser

from aesr1.contract import PROMPT
from aesr1.errors import AesError
from aesr1.folders import write_run, write_text
from aesr1.images import open_image
from aesr1.vlm import STAMP, check_stamp, stamp_checkpoint

VISION_PARTS = ("visual", "vision_tower", "vision_model", "multi_modal_projector", "connector", "vision_embed")
"""How the model families name their vision tower and projector."""


def parse_recipe(kinds: Sequence[type], arguments: Sequence[str], **defaults: Any) -> tuple[Any, ...]:
    """Settings from `--config recipe.yaml` and flags that override it, into one object of each dataclass.

    `defaults` replace TRL's own. Unknown keys are an AesError that names them.
    """
    # TRL still uses the names that transformers has deprecated; nobody who runs a recipe can act on that.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
    parser = TrlParser(list(kinds))

    def refuse(message: str) -> None:
        raise AesError(message, fix="give it in the recipe or as a flag; `--help` lists every setting")

    parser.error = refuse
    parser.set_defaults_with_config(**defaults)
    arguments = list(arguments)
    try:
        *settings, unknown = parser.parse_args_and_config(arguments, return_remaining_strings=True)
    except (FileNotFoundError, IndexError) as error:
        raise AesError(
            f"there is no such recipe: {error}", fix="pass --config a YAML file; the project's lie in recipes/"
        ) from error
    except yaml.YAMLError as error:
        raise AesError(f"the recipe is no YAML: {error}", fix="mend the line it names") from error
    except (ValueError, TypeError) as error:
        raise AesError(
            f"the settings contradict each other or are of the wrong kind: {error}", fix="mend the recipe or the flag"
        ) from error
    if unknown:
        names = [text for text in unknown if text.startswith("--")] or unknown
        raise AesError(
            f"unknown settings: {' '.join(names)}", fix="see `--help` for every setting, or remove them from the recipe"
        )
    return tuple(settings)


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


def freeze_vision(model: Any) -> int:
    """Freeze vision tower and projector (the paper's cold start); the number of frozen parameters."""
    frozen = 0
    for name, parameter in model.named_parameters():
        if any(part in VISION_PARTS for part in name.split(".")):
            parameter.requires_grad_(False)
            frozen += parameter.numel()
    if not frozen:
        raise AesError(
            "no vision part was found in this model",
            fix=f"its parameters are named by none of {', '.join(VISION_PARTS)}",
        )
    return frozen


def resume_point(output: Path) -> str | None:
    """The last whole checkpoint of an unfinished run, None for a new one. AesError for a finished run."""
    if (output / STAMP).is_file():
        raise AesError(f"{output} holds a finished run", fix="choose another output folder; nothing is overwritten")
    if not output.is_dir():
        return None
    whole = [path for path in output.glob("checkpoint-*") if (path / STAMP).is_file()]
    if not whole:
        return None
    last = get_last_checkpoint(str(output))
    newest = max(whole, key=lambda path: int(path.name.split("-")[1]))
    check_stamp(newest)
    if last is not None and Path(last) != newest:
        print(f"{last} is unfinished and left out; going on from {newest}", file=sys.stderr)
    return str(newest)


class Resuming:
    """For a Trainer: a checkpoint's weights under their saved names.

    transformers saves Qwen2.5-VL under the names of its hub repository but resumes by the names in memory, so that
    nothing matches and training silently goes on from the first weights (QwenLM/Qwen3-VL#1763, ms-swift#7947).
    """

    is_fsdp_enabled: bool
    model: Any

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        target = self.model if model is None else model
        if (
            self.is_fsdp_enabled or not (Path(resume_from_checkpoint) / "config.json").is_file()
        ):  # sharded, or an adapter
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        saved = AutoModelForImageTextToText.from_pretrained(resume_from_checkpoint, dtype=target.dtype)
        target.load_state_dict(saved.state_dict())


@dataclass
class Progressing(TrainerCallback):  # type: ignore[misc]  # transformers' callbacks are untyped
    """A rich bar with time left on stderr; marks every checkpoint as whole once all of it is written."""

    stage: str

    def __post_init__(self) -> None:
        self.bar = Progress(
            TextColumn(self.stage),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self.task = self.bar.add_task(self.stage, note="")

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Show the bar on the first process."""
        if state.is_world_process_zero:
            self.bar.update(self.task, total=state.max_steps, completed=state.global_step)
            self.bar.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move on by a step."""
        self.bar.update(self.task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Show the figures that say how the run goes."""
        shown = ("loss", "reward", "readable", "validation/srcc")
        note = "  ".join(f"{key} {logs[key]:.3f}" for key in shown if logs and isinstance(logs.get(key), float))
        if note:
            self.bar.update(self.task, note=note)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called after the last file of a checkpoint."""
        if state.is_world_process_zero:
            stamp_checkpoint(Path(args.output_dir or ".") / f"checkpoint-{state.global_step}", stage=self.stage)


def run(trainer: Any, progress: Progressing, *, resume: str | None) -> None:
    """Train with our bar in place of the stock ones; it is taken away whatever happens."""
    if trainer.args.device.type == "cpu":
        _keep_freed_memory()
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    try:
        trainer.train(resume_from_checkpoint=resume)
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
    """Write the trained model, its processor, the figures and `run.json`; stamped last. The folder."""
    output = Path(trainer.args.output_dir)
    trainer.save_model(str(output))
    if trainer.is_world_process_zero():
        processor.save_pretrained(output)
        write_text(output / "figures.jsonl", "".join(json.dumps(row) + "\n" for row in trainer.state.log_history))
        write_run(output, stage, config, started=started, training=trainer.args.to_sanitized_dict())
        stamp_checkpoint(output, stage=stage)
    return output
