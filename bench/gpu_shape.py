"""Qwen2.5-VL of real dimensions with random weights, and how many operations a step of it needs: for bench/gpu.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from aesr1.contract import PROMPT
from aesr1.model import bundled_shapes
from tiny_model import build_processor


@dataclass(frozen=True)
class Text:
    """The language model, in its config's words."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool

    @property
    def head(self) -> int:
        """Numbers of one attention head."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class Vision:
    """The tower, in its config's words."""

    depth: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    fullatt_block_indexes: Sequence[int]  # layers that see the whole picture, others a window
    patch_size: int = 14
    temporal_patch_size: int = 2  # a picture stands as two equal frames
    spatial_merge_size: int = 2
    window_size: int = 112  # pixels


@dataclass(frozen=True)
class Shape:
    """A model's dimensions."""

    text: Text
    vision: Vision


SHAPES = {
    name: Shape(
        Text(**bundled_shapes.SHAPES[f"Qwen/Qwen2.5-VL-{name.upper()}-Instruct"]._asdict()),
        Vision(**bundled_shapes.VISION),
    )
    for name in ("3b", "7b")
} | {
    "tiny": Shape(Text(64, 2, 4, 2, 128, 1024, True), Vision(2, 64, 4, 128, (1,))),
}


def processor_for(max_pixels: int) -> Any:
    """The toy's processor with Qwen's patches; the prompt is spelt out (77 tokens) instead of being one token."""
    processor = build_processor([PROMPT] * 4, prompts=())
    spelt = json.loads(processor.tokenizer.backend_tokenizer.to_str())
    spelt["added_tokens"] = [token for token in spelt["added_tokens"] if token["content"] != PROMPT]
    processor.tokenizer._tokenizer = Tokenizer.from_str(json.dumps(spelt))
    processor.image_processor = Qwen2VLImageProcessorPil(
        patch_size=14,
        temporal_patch_size=2,
        merge_size=2,
        size={"shortest_edge": 56 * 56, "longest_edge": max_pixels},
    )
    return processor


def build(shape: Shape, processor: Any, *, dtype: torch.dtype, device: str) -> Any:
    """A model of random weights, made on the device, that knows the processor's special tokens; always the same one."""
    ids = processor.tokenizer.convert_tokens_to_ids
    ends = {"eos_token_id": ids("<|im_end|>"), "pad_token_id": ids("<|endoftext|>")}
    eighth = shape.text.head // 8
    sections = [eighth, 3 * eighth // 2, 3 * eighth // 2]  # [16, 24, 24] of a head of 128
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    config = Qwen2_5_VLConfig(
        text_config={**asdict(shape.text), **ends, "bos_token_id": None, "rms_norm_eps": 1e-6, "rope_parameters": rope},
        vision_config={**asdict(shape.vision), "out_hidden_size": shape.text.hidden_size},
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=shape.text.tie_word_embeddings,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation="sdpa")
    model.generation_config.update(**ends)
    return model


class Batch(NamedTuple):
    """Rows of equal length, each a picture of side × side patches, its prompt and a reply."""

    rows: int
    prompt: int  # tokens, the picture's among them
    reply: int  # tokens
    side: int


class Operations(NamedTuple):
    """Of forward and backward over a batch; a multiplication with its addition counts as two."""

    forward: float
    backward: float
    recomputed: float


class Part(NamedTuple):
    """Forward operations of a part of the model."""

    weights: float  # products with its weights
    first: float = 0.0  # of these, with an input that needs no gradient
    adapters: float = 0.0  # products with LoRA's
    attention: float = 0.0  # products without weights
    repeated: float = 0.0  # of all these, what checkpointing does again

    @property
    def forward(self) -> float:
        """All of the forward pass."""
        return self.weights + self.adapters + self.attention


def vision_part(shape: Shape, batch: Batch) -> Part:
    """The tower: 2 · weights · patches for the layers (4 h² + 3 h·i each), the patches' projection and the merger.

    Attention: 4 · h · Σ n² a layer, over the windows' n patches or, in the full layers, the picture's.
    """
    vision, factor = shape.vision, 2.0 * batch.rows * batch.side**2
    h, merging = vision.hidden_size, vision.spatial_merge_size**2
    last = vision.depth * h * vision.intermediate_size
    layers = vision.depth * 4 * h * h + 3 * last
    merger = merging * h * (merging * h + shape.text.hidden_size) / merging
    embed = 3 * vision.temporal_patch_size * vision.patch_size**2 * h
    across = vision.window_size // vision.patch_size
    sides = [min(across, batch.side - start) for start in range(0, batch.side, across)]
    windows, full = sum(side**2 for side in sides) ** 2, len(vision.fullatt_block_indexes)
    attention = 4.0 * h * batch.rows * (full * batch.side**4 + (vision.depth - full) * windows)
    return Part(
        factor * (layers + merger + embed),
        first=factor * embed,
        attention=attention,
        repeated=factor * (layers - last) + attention,
    )


def language_part(shape: Shape, batch: Batch, *, rank: int = 0) -> Part:
    """The decoder's layers: 2 · weights · tokens; LoRA 2 · rank · (in + out) a token and matrix.

    Attention: half of 4 · h · T² a layer, because a token sees only those before it.
    """
    h, keys = shape.text.hidden_size, shape.text.num_key_value_heads * shape.text.head
    last = (shape.text.intermediate_size, h)
    matrices = [(h, h), (h, keys), (h, keys), (h, h), last, last, last]
    length = batch.prompt + batch.reply
    factor = 2.0 * batch.rows * length * shape.text.num_hidden_layers
    weights, adapters = sum(a * b for a, b in matrices), rank * sum(a + b for a, b in matrices)
    again = weights + adapters - rank * h if rank else weights - last[0] * h
    return Part(
        factor * weights,
        adapters=factor * adapters,
        attention=factor * h * length,
        repeated=factor * (again + h * length),
    )


def head_part(shape: Shape, batch: Batch) -> Part:
    """The output head, on the reply's tokens alone: 2 · h · vocabulary each. TRL's repeats it by itself."""
    products = 2.0 * batch.rows * batch.reply * shape.text.hidden_size * shape.text.vocab_size
    return Part(products, repeated=products)


def forward_operations(shape: Shape, batch: Batch) -> float:
    """One pass without gradients (nor adapters) that scores the replies."""
    return sum(part(shape, batch).forward for part in (vision_part, language_part, head_part))


def training_operations(
    shape: Shape, batch: Batch, *, rank: int = 0, vision_trained: bool, vision_backward: bool
) -> Operations:
    """Forward and backward of the loss, gradient checkpointing on; rank 0 trains every weight of the language model.

    A trained weight takes 6 a token (2 forward, 2 for the gradient of its input, 2 for its own), a frozen one that
    gradients pass 4, a frozen one that none pass 2; attention's backward is twice its forward. Checkpointing adds one
    more forward of every layer that gradients pass, up to the last tensor that it has to have: without LoRA the last
    product is left out. vision_backward: whether gradients pass the tower, which they do even where it is frozen if
    its inputs were made to require them.
    """
    parts = (
        (vision_part(shape, batch), vision_backward, vision_trained),
        (language_part(shape, batch, rank=rank), True, not rank),
        (head_part(shape, batch), True, not rank),
    )
    passed = [(part, trained) for part, gradients, trained in parts if gradients]
    return Operations(
        forward=sum(part.forward for part, _, _ in parts),
        backward=sum(
            part.weights * (1 + trained) - part.first + 2 * (part.adapters + part.attention) for part, trained in passed
        ),
        recomputed=sum(part.repeated for part, _ in passed),
    )
