"""What a training run would be, before it costs anything: parameters, tokens, memory, steps. No weights are read."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, TrainingArguments

from aesr1.contract import PROMPT
from aesr1.errors import AesError
from aesr1.estimate import ADAM, GIB, Memory, Shape, Work, memory
from aesr1.launch import Launch, from_file, launched
from aesr1.trainable import freeze_vision, lora_parameters
from aesr1.vlm import configured


@dataclass(frozen=True)
class DryRun:
    """Say what the run would be, and do nothing."""

    dry_run: bool = False
    accelerate_config: str | None = None  # as for `accelerate launch`; default: as launched now

    def __post_init__(self) -> None:
        if self.accelerate_config and not self.dry_run:
            raise AesError(
                "accelerate_config is for a dry run alone",
                fix="add --dry_run, or launch with `accelerate launch --config_file … -m aesr1 …`",
            )


def without_gpu(settings: Namespace) -> None:
    """A dry run needs no GPU, whatever the recipe says of its arithmetic."""
    if getattr(settings, "dry_run", False):
        settings.use_cpu = True


class Body(NamedTuple):
    """A model as its config describes it."""

    kind: str
    shape: Shape
    saved: int  # parameters in a checkpoint: of LoRA, those of the adapter
    picture_tokens: int  # of a square picture of max_pixels
    text_tokens: int  # of the prompt, template and all


def launch_of(dry: DryRun, training: TrainingArguments) -> Launch:
    """The processes that a run would have."""
    return from_file(Path(dry.accelerate_config)) if dry.accelerate_config else launched(training.world_size)


def body_of(settings: Any, training: TrainingArguments, launch: Launch) -> Body:
    """Count parameters and a picture's tokens from a config and a processor, by a stage's settings.

    AesError as `vlm.load`.
    """
    max_pixels, lora_rank = settings.max_pixels, settings.lora_rank
    config, processor = configured(settings.model, max_pixels=max_pixels)
    with torch.device("meta"):
        empty = AutoModelForImageTextToText.from_config(config)
    if settings.freeze_vision:
        freeze_vision(empty)
    total = sum(parameter.numel() for parameter in empty.parameters())
    trained = sum(parameter.numel() for parameter in empty.parameters() if parameter.requires_grad)
    if lora_rank:
        trained = lora_parameters(empty, lora_rank)
        total += trained
    text = config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    side = int(max_pixels**0.5)
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    question = processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    seen = processor(text=[question], images=[[Image.new("RGB", (side, side))]], return_tensors="pt")["input_ids"]
    picture = int((seen == config.image_token_id).sum())
    largest = max(sum(p.numel() for p in layer.parameters()) for layer in _layers(empty))
    shape = Shape(
        parameters=total,
        trained=trained,
        weight_bytes=bytes_of_a_weight(settings.dtype, training, launch),
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        layers=text.num_hidden_layers,
        cache_width=(getattr(text, "num_key_value_heads", None) or text.num_attention_heads) * width,
        largest_layer=largest,
    )
    return Body(type(empty).__name__, shape, trained if lora_rank else total, picture, seen.shape[1] - picture)


def _layers(model: Any) -> list[Any]:
    """What FSDP and ZeRO-3 gather at a time: the layers, and the embeddings."""
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return [layer for layers in lists for layer in layers] + [model.get_input_embeddings()]


def bytes_of_a_weight(dtype: str, training: TrainingArguments, launch: Launch) -> int:
    """4, or 2: DeepSpeed makes 16-bit weights of any under bf16, and keeps its own float32 copy."""
    half = dtype in ("bfloat16", "float16") or (launch.deepspeed and training.bf16)
    return 2 if half else 4


def steps_of(training: TrainingArguments, passes: int) -> int:
    """Optimizer steps of a run whose processes each do so many micro-batches an epoch; as transformers counts them."""
    if training.max_steps > 0:
        return int(training.max_steps)
    an_epoch: int = max(1, math.ceil(passes / training.gradient_accumulation_steps))
    return math.ceil(float(training.num_train_epochs) * an_epoch)


def report(
    body: Body, work: Work, launch: Launch, training: TrainingArguments, *, steps: int, lines: Sequence[str]
) -> str:
    """The plan as text; `lines` are what the stage itself has to say."""
    shape = body.shape
    need = memory(shape, work, launch)
    saves = sum(1 for step in range(1, steps + 1) if training.save_steps and step % int(training.save_steps) == 0)
    kept = min(saves, training.save_total_limit or saves)
    checkpoint = body.saved * shape.weight_bytes + ADAM * shape.trained
    shared = f", which divide {launch.shards}{', offloaded' if launch.offload else ''}" if launch.processes > 1 else ""
    return "\n".join(
        [
            f"model: {body.kind}, {_millions(shape.parameters)} parameters: {_millions(shape.trained)} trained, "
            f"{_millions(shape.parameters - shape.trained)} frozen",
            f"tokens: {body.picture_tokens} for a picture of max_pixels, {body.text_tokens} for the prompt, "
            f"{work.tokens} with the longest reply",
            f"processes: {launch.processes}{shared}",
            *lines,
            f"steps: {steps:,}; checkpoints: {saves}, of which {kept} are kept, {_size(checkpoint)} each",
            f"memory a GPU: {_size(need.peak)} estimated ({_parts(need)}); CUDA and NCCL take 2 to 4 more",
        ]
    )


def _parts(need: Memory) -> str:
    return ", ".join(f"{name} {_size(size)}" for name, size in need._asdict().items() if size)


def _millions(count: float) -> str:
    return f"{count / 1e6:,.1f} M"


def _size(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"
