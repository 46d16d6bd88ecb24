"""A model as its config and processor describe it, without its weights: parameters, tokens of a picture, operations."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, TrainingArguments

from aesr1.contract import PROMPT
from aesr1.model.bundled_shapes import is_bundled, load_shape
from aesr1.training.compute_estimate import PassShape, picture_flops
from aesr1.training.launch import Launch
from aesr1.training.memory_estimate import ModelShape
from aesr1.training.parameters import PROJECTORS, VISION_PARTS, count_lora_parameters, freeze_vision, lora_targets
from aesr1.training.settings import ModelSettings

DEEP_PROJECTORS = "deepstack_merger_list"
"""Qwen3-VL's projectors of features from inside its tower."""


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
