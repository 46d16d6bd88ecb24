"""What a run would be, without reading weights: parameters, tokens, steps, memory, compute."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, TrainingArguments

from aesr1.contract import PROMPT
from aesr1.errors import AesError
from aesr1.model.bundled_shapes import is_bundled, load_shape
from aesr1.training.checks import check_parsed
from aesr1.training.compute_estimate import PassShape, RunWork, compute_lines, picture_flops
from aesr1.training.launch import SHARD_ALL, Launch, launch_from_environment, launch_from_file, launch_with_flags
from aesr1.training.memory_estimate import ADAM, GIB, MASTER, MemoryEstimate, ModelShape, StepWork, estimate_memory
from aesr1.training.parameters import PROJECTORS, VISION_PARTS, count_lora_parameters, freeze_vision, lora_targets
from aesr1.training.settings import ModelSettings

DEEP_PROJECTORS = "deepstack_merger_list"
"""Qwen3-VL's projectors of features from inside its tower."""


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


class PromptTokens(NamedTuple):
    """Tokens of a prompt."""

    picture: int  # of one of max_pixels
    text: int  # of the prompt, template and all


class Patches(NamedTuple):
    """What a vision tower sees of one picture."""

    total: int
    view: int  # patches of the picture, or of each tile that it is cut into: those that full attention compares


class ModelSummary(NamedTuple):
    """A model as its config describes it."""

    kind: str
    shape: ModelShape
    compute: PassShape
    saved: int  # parameters in a checkpoint: of LoRA, those of the adapter
    prompt: PromptTokens


class Schedule(NamedTuple):
    """The number of steps and of checkpoints."""

    steps: int
    checkpoints: int


def planned_launch(dry: DryRun, training: TrainingArguments) -> Launch:
    """The processes of the run."""
    if dry.accelerate_config:
        return launch_with_flags(launch_from_file(Path(dry.accelerate_config)), training)
    return launch_from_environment(training)


def count_prompt_tokens(config: Any, processor: Any, *, max_pixels: int, shape: float = 1.0) -> PromptTokens:
    """Tokens of the prompt about one picture of `max_pixels`; `shape` is its width by its height."""
    return _count_tokens(config, prompt_inputs(processor, max_pixels=max_pixels, shape=shape))


def _count_tokens(config: Any, inputs: Any) -> PromptTokens:
    seen = inputs["input_ids"]
    picture = int((seen == config.image_token_id).sum())
    return PromptTokens(picture, seen.shape[1] - picture)


def prompt_inputs(processor: Any, *, max_pixels: int, shape: float = 1.0) -> Any:
    """The model's inputs for the prompt about one picture."""
    height = int((max_pixels / shape) ** 0.5)
    size = (int(height * shape), height)
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    question = processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    return processor(text=[question], images=[[Image.new("RGB", size)]], return_tensors="pt")


def count_patches(config: Any, inputs: Any) -> Patches:
    """The patches of the one picture in `inputs`."""
    patch, pixels = config.vision_config.patch_size, inputs["pixel_values"]
    if "image_grid_thw" in inputs or "image_position_ids" in inputs:  # a row for each patch
        return Patches(pixels.shape[-2], pixels.shape[-2])
    height, width = (patch, patch) if isinstance(patch, int) else patch
    view = (pixels.shape[-2] // height) * (pixels.shape[-1] // width)
    return Patches(view * pixels.shape[:-3].numel(), view)


def summarize_model(settings: ModelSettings, training: TrainingArguments, launch: Launch) -> ModelSummary:
    """Count parameters and a picture's tokens from a config and a processor. AesError as `model.load.load`."""
    max_pixels, lora_rank = settings.max_pixels, settings.lora_rank
    config, processor = load_shape(settings.model, max_pixels=max_pixels)
    with torch.device("meta"):
        empty = AutoModelForImageTextToText.from_config(config)
    if settings.freeze_vision:
        freeze_vision(empty, train_projector=settings.train_projector)
    total = sum(parameter.numel() for parameter in empty.parameters())
    trained = sum(parameter.numel() for parameter in empty.parameters() if parameter.requires_grad)
    if lora_rank:
        trained = count_lora_parameters(empty, lora_rank)
        total += trained
    text = config.get_text_config()
    keys, queries = _attention_widths(text)
    largest = max(sum(p.numel() for p in layer.parameters()) for layer in _layers(empty))
    shape = ModelShape(
        parameters=total,
        trained=trained,
        weight_bytes=bytes_of_a_weight(settings.dtype, training, launch),
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        layers=text.num_hidden_layers,
        cache_width=keys,
        largest_layer=largest,
    )
    inputs = prompt_inputs(processor, max_pixels=max_pixels)
    question = _count_tokens(config, inputs)
    kind = type(empty).__name__ + (f" (bundled shape of {settings.model})" if is_bundled(settings.model) else "")
    compute = PassShape(
        language=_weights(empty, lora_targets(empty)) + _expert_weights(empty, text),
        adapter=trained if lora_rank else 0,
        head=empty.get_output_embeddings().weight.numel(),
        layers=text.num_hidden_layers,
        attention=queries,
        picture=vision_flops(empty, inputs, tokens=question.picture),
        trains_language=not lora_rank,
        trains_vision=not (lora_rank or settings.freeze_vision),
    )
    return ModelSummary(kind, shape, compute, trained if lora_rank else total, question)


def _attention_widths(text: Any) -> tuple[int, int]:
    """Numbers in the keys (or values) and in the queries of one token in a layer: the mean where layers differ."""
    layers = getattr(text, "per_layer_config", None) or [text]  # Gemma 4's layers differ
    widths = [getattr(each, "head_dim", None) or each.hidden_size // each.num_attention_heads for each in layers]
    heads = [(getattr(each, "num_key_value_heads", None), each.num_attention_heads) for each in layers]
    keys = sum(width * (pair[0] or pair[1]) for width, pair in zip(widths, heads, strict=True))
    queries = sum(width * pair[1] for width, pair in zip(widths, heads, strict=True))
    return keys // len(layers), queries // len(layers)


def _expert_weights(model: Any, text: Any) -> int:
    """Weights of a mixture's experts that one token uses. They are no linear layers: (experts, rows, columns)."""
    experts = [weights for name, weights in model.named_parameters() if ".experts." in name and weights.ndim == 3]
    return sum(weights[0].numel() * text.num_experts_per_tok for weights in experts)


def vision_flops(model: Any, inputs: Any, *, tokens: int) -> float:
    """Forward FLOPs of the vision tower and the projector for the one picture in `inputs`, which takes so many tokens.

    0 for a tower of convolutions. Qwen2.5-VL's windows are counted as whole ones.
    """
    if any(isinstance(layer, torch.nn.Conv2d) and layer.kernel_size != layer.stride for layer in model.modules()):
        return 0.0
    vision, patches = model.config.vision_config, count_patches(model.config, inputs)
    parts = {name: set(name.split(".")) for name, _ in model.named_modules()}
    seen = {name for name, words in parts.items() if not words.isdisjoint(VISION_PARTS)}
    projector = {name for name in seen if not parts[name].isdisjoint((*PROJECTORS, DEEP_PROJECTORS))}
    layers = getattr(vision, "depth", None) or vision.num_hidden_layers
    full, view = layers, patches.view
    if (window := getattr(vision, "window_size", None)) is not None:
        full = len(vision.fullatt_block_indexes)
        view = min(view, (window // vision.patch_size) ** 2)
    return picture_flops(
        tower=_weights(model, seen - projector),
        patches=patches.total,
        projector=_weights(model, projector),
        tokens=tokens,
        width=getattr(vision, "embed_dim", None) or vision.hidden_size,
        pairs=patches.total * (full * patches.view + (layers - full) * view),
    )


def _weights(model: Any, names: Collection[str]) -> int:
    """Weights of the linear layers, and of the convolutions that embed patches, among these modules."""
    layers = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d)
    return sum(
        module.weight.numel() for name, module in model.named_modules() if name in names and isinstance(module, layers)
    )


def _layers(model: Any) -> list[Any]:
    """What FSDP and ZeRO-3 gather at a time: the layers, and the embeddings."""
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return [layer for layers in lists for layer in layers] + [model.get_input_embeddings()]


def bytes_of_a_weight(dtype: str, training: TrainingArguments, launch: Launch) -> int:
    """4, or 2: DeepSpeed makes 16-bit weights of any under bf16, and keeps its own float32 copy."""
    half = dtype in ("bfloat16", "float16") or (launch.deepspeed and training.bf16)
    return 2 if half else 4


def schedule(training: TrainingArguments, passes: int) -> Schedule:
    """Steps and checkpoints of a run; `passes` are micro-batches of a process in an epoch.

    Counts as transformers does.
    """
    an_epoch: int = max(1, math.ceil(passes / training.gradient_accumulation_steps))
    steps = training.max_steps if training.max_steps > 0 else math.ceil(float(training.num_train_epochs) * an_epoch)
    if training.save_strategy == "epoch":
        return Schedule(steps, math.ceil(steps / an_epoch))
    if training.save_strategy != "steps":
        return Schedule(steps, 0)
    every = steps_between_saves(training, steps)
    return Schedule(steps, math.ceil(steps / every) if every else 1)  # the last step is always saved


def steps_between_saves(training: TrainingArguments, steps: int) -> int:
    """Steps from one checkpoint to the next: save_steps below 1 is a share of the whole run."""
    return math.ceil(training.save_steps * steps) if training.save_steps < 1 else int(training.save_steps)


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
