"""What a run would be, without reading weights: its flags, and its plan as text."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import TrainingArguments

from aesr1.errors import AesError
from aesr1.training.checks import check_parsed
from aesr1.training.compute_estimate import RunWork, compute_lines
from aesr1.training.launch import SHARD_ALL, Launch, launch_from_environment, launch_from_file, launch_with_flags
from aesr1.training.memory_estimate import ADAM, GIB, MASTER, MemoryEstimate, StepWork, estimate_memory
from aesr1.training.model_summary import ModelSummary
from aesr1.training.schedule import Schedule


@dataclass(frozen=True)
class DryRun:
    """Print what the run would be, and stop."""

    _argument_group_name = "instead of a run"

    dry_run: bool = field(default=False, metadata={"help": "Print what the run would be, and stop."})
    accelerate_config: str | None = field(
        default=None,
        metadata={"help": "For --dry_run: the file for `accelerate launch`, such as one of recipes/accelerate."},
    )

    def __post_init__(self) -> None:
        if self.accelerate_config and not self.dry_run:
            raise AesError(
                "accelerate_config is only for a dry run",
                fix="add --dry_run, or launch with `accelerate launch --config_file … -m aesr1 …`",
            )


def adapt_settings(settings: Namespace) -> int | None:
    """For `parse_recipe`: check the settings; a dry run is checked as the run that it describes.

    A dry run needs no GPU. Returns the number of processes of its launch file, or None.
    """
    check_parsed(settings)
    if not getattr(settings, "dry_run", False):
        return None
    settings.use_cpu = True
    return launch_from_file(Path(settings.accelerate_config)).processes if settings.accelerate_config else None


def planned_launch(dry: DryRun, training: TrainingArguments) -> Launch:
    """The processes of the run."""
    if dry.accelerate_config:
        return launch_with_flags(launch_from_file(Path(dry.accelerate_config)), training)
    return launch_from_environment(training)


def checkpoint_bytes(model: ModelSummary, launch: Launch, *, model_only: bool) -> float:
    """Weights and Adam's moments.

    DeepSpeed also saves the float32 weights that it trains and, where it does not divide them, its own copy of the
    model: 14 or 16 bytes a trained parameter in all.
    """
    shape = model.shape
    weights = model.saved * shape.weight_bytes
    if model_only:
        return weights
    own = MASTER * shape.trained if launch.deepspeed else 0
    if launch.deepspeed and launch.shards != SHARD_ALL:
        own += shape.parameters * shape.weight_bytes
    return weights + ADAM * shape.trained + own


def format_plan(
    model: ModelSummary,
    work: StepWork,
    whole: RunWork,
    launch: Launch,
    training: TrainingArguments,
    *,
    planned: Schedule,
    lines: Sequence[str],
) -> str:
    """The plan as text; `work` is that of a process at a time, `whole` the run's; `lines` are the stage's own."""
    shape = model.shape
    need = estimate_memory(shape, work, launch)
    saves = planned.checkpoints
    kept = min(saves, training.save_total_limit or saves)
    size = _size(checkpoint_bytes(model, launch, model_only=training.save_only_model))
    written = f"checkpoints: {saves}, of which {kept} are kept, {size} each" if saves else "no checkpoints"
    shared = f", which divide {launch.shards}{', offloaded' if launch.offload else ''}" if launch.processes > 1 else ""
    return "\n".join(
        [
            f"model: {model.kind}, {_millions(shape.parameters)} parameters: {_millions(shape.trained)} trained, "
            f"{_millions(shape.parameters - shape.trained)} frozen",
            f"tokens: {model.prompt.picture} for a picture of max_pixels, {model.prompt.text} for the prompt, "
            f"{work.tokens} with the longest reply",
            f"processes: {launch.processes}{shared}",
            *lines,
            f"steps: {planned.steps:,}; {written}",
            f"memory a GPU: {_size(need.peak)} estimated ({_parts(need)}); CUDA and NCCL take 2 to 4 more",
            *compute_lines(shape, model.compute, whole, processes=launch.processes),
        ]
    )


def _parts(need: MemoryEstimate) -> str:
    return ", ".join(f"{name} {_size(size)}" for name, size in need._asdict().items() if size)


def _millions(count: float) -> str:
    return f"{count / 1e6:,.1f} M"


def _size(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"
