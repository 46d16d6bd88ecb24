"""Which parameters are trained: all, all except the vision tower, or LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import PreTrainedModel

from aesr1.errors import AesError
from aesr1.training.launch import SHARD_ALL, Launch

VISION_PARTS = (
    "visual",
    "vision_tower",
    "vision_model",
    "multi_modal_projector",
    "connector",
    "vision_embed",
    "embed_vision",
    "image_newline",
)
"""Names of the vision tower and projector in the model families (image_newline is LLaVA's end of a row)."""
PROJECTORS = ("multi_modal_projector", "connector", "merger", "embed_vision")
"""Names of the projector, the layers between vision tower and language model."""


def freeze_vision(model: Any, *, train_projector: bool = False) -> int:
    """Freeze vision tower and projector (the paper's cold start), or the tower alone; the number of frozen parameters.

    AesError where no vision part is found, or no projector that could be trained.
    """
    frozen, trained = 0, 0
    for name, parameter in model.named_parameters():
        parts = set(name.split("."))
        if train_projector and not parts.isdisjoint(PROJECTORS):
            trained += 1
        elif not parts.isdisjoint(VISION_PARTS):
            parameter.requires_grad_(False)
            frozen += getattr(parameter, "ds_numel", parameter.numel())  # under ZeRO-3 the tensor itself is empty
    if not frozen:
        raise AesError(
            "no vision part was found in this model",
            fix=f"its parameters are named by none of {', '.join(VISION_PARTS)}",
        )
    if train_projector and not trained:
        raise AesError("no projector was found in this model", fix="leave train_projector out")
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel) and any(part in VISION_PARTS for part in name.split(".")):
            # Gradient checkpointing makes the output of "input embeddings" require gradients, also of a tower's patch
            # embedding. A frozen tower would then be computed again, with useless gradients.
            module.get_input_embeddings = _nothing_to_train
    return frozen


def _nothing_to_train() -> None:
    raise NotImplementedError("a frozen vision tower has no embeddings to train")


def lora_targets(model: Any) -> list[str]:
    """Full names of the language model's linear layers, without the vision tower and the output head."""
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module is not head
        and not any(part in VISION_PARTS for part in name.split("."))
    ]


def lora_config(model: Any, *, rank: int, alpha: int) -> LoraConfig | None:
    """LoRA of this rank on all of `lora_targets`; None for rank 0."""
    if not rank:
        return None
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=lora_targets(model), task_type="CAUSAL_LM")


def unwrap_lora(model: Any) -> Any:
    """The model with LoRA's layers but without PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def count_lora_parameters(model: Any, rank: int) -> int:
    """How many parameters `lora_config` adds."""
    layers = dict(model.named_modules())
    return sum(rank * (layers[name].in_features + layers[name].out_features) for name in lora_targets(model))


def check_lora(rank: int, launch: Launch) -> None:
    """AesError where the weights are divided or wrapped: an adapter could not be merged into them."""
    if rank and (launch.shards == SHARD_ALL or launch.fsdp):
        raise AesError(
            "lora_rank is set and the weights are divided among the processes (ZeRO-3) or wrapped to be (FSDP)",
            fix="LoRA needs no division: launch with recipes/accelerate/ddp.yaml or zero2.yaml, or set lora_rank: 0",
        )


def save_merged(model: Any, output: Path) -> None:
    """Write the adapter to output/adapter and the merged model to output.

    Merged and written in float32: bfloat16 would round most of a small update away.
    """
    model.save_pretrained(output / "adapter")
    model.to(device="cpu", dtype=torch.float32).merge_and_unload().save_pretrained(output)


def check_dtype(dtype: str, rank: int, launch: Launch) -> None:
    """AesError where 16-bit weights would be trained directly: updates of 1e-6 vanish in rounding."""
    if dtype in ("bfloat16", "float16") and not rank and not launch.deepspeed:
        raise AesError(
            f"dtype is {dtype}, and nothing keeps a float32 copy of the trained weights",
            fix="set dtype: float32 (bf16: true keeps the arithmetic fast), launch with DeepSpeed "
            "(a dry run is told of it by --accelerate_config FILE), or train by LoRA",
        )
