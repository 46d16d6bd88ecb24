"""Builds the photo model from a config: a FastVLM of EfficientNet-Lite2 and a Qwen2 of two million parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import (
    CLIPImageProcessorPil,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlavaProcessor,
)
from transformers.image_utils import PILImageResampling

from aesr1.model.processor import picture_processor
from photo_tower import MEAN, SIDE, STD
from tiny_model import CHAT_TEMPLATE as QWEN_TEMPLATE
from tiny_model import build_tokenizer

CELL = 28
"""Pixels of a picture token's side: 260 // 28 is 9, and the tower's map is 9 × 9."""
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")
CHAT_TEMPLATE = QWEN_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<image>")


def build_processor(corpus: Iterable[str], *, prompts: tuple[str, ...], vocab_size: int = 1_024) -> Any:
    """A processor with a vocabulary trained on a corpus (`tiny_model.build_tokenizer`)."""
    tokenizer = build_tokenizer(corpus, special=SPECIAL, prompts=prompts, vocab_size=vocab_size)
    return picture_processor(LlavaProcessor)(
        build_image_processor(),
        tokenizer,
        patch_size=CELL,
        num_additional_image_tokens=0,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        image_token="<image>",
    )


def build_image_processor() -> Any:
    """Pictures as Lite2 was trained on: 260 × 260, their proportions lost, from −1 to 1."""
    return CLIPImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        do_center_crop=False,
        resample=PILImageResampling.BICUBIC,
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    )


def build_model(processor: Any, tower: Any, *, seed: int, width: int = 192, layers: int = 4) -> Any:
    """A FastVLM with this tower; projector and language model have random weights. float32, on the CPU."""
    ids = processor.tokenizer.convert_tokens_to_ids
    config = FastVlmConfig(
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(processor.tokenizer),
            "hidden_size": width,
            "intermediate_size": width * 8 // 3,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 32,
            "num_key_value_heads": max(1, width // 96),
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000.0},
            "initializer_range": 0.04,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config=tower.config.to_dict(),
        image_token_index=ids("<image>"),
        image_seq_length=(SIDE // CELL) ** 2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = FastVlmForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.generation_config.eos_token_id = ids("<|im_end|>")
    model.generation_config.pad_token_id = ids("<|endoftext|>")
    return model


@torch.no_grad()
def begin_with_components(model: Any, features: torch.Tensor) -> None:
    """Begin the projector with the principal components in which pictures differ, each of mean 0 and variance 1.

    features (n, channels, 9, 9), of which a few channels may always be 0. The components are of the pictures' mean
    features. A first layer at random would keep little of what orders photographs (bench/photo_ridge.py).
    """
    projector = model.model.multi_modal_projector
    first, second = projector.linear_1, projector.linear_2
    tokens = features.float().flatten(2)  # (n, channels, 81)
    centre, spread = tokens.mean((0, 2)), tokens.std((0, 2))
    spread[spread == 0] = torch.inf  # a channel that is always 0 gets weight 0
    pictures = (tokens.mean(2) - centre) / spread
    components = torch.linalg.eigh(pictures.T @ pictures).eigenvectors[:, -first.out_features :]
    seen = torch.einsum("ncp,cw->npw", (tokens - centre[:, None]) / spread[:, None], components)
    first.weight.copy_((components / seen.std((0, 1))).T / spread)
    first.bias.copy_(-(first.weight @ centre))
    second.weight.normal_(std=second.in_features**-0.5)
    second.bias.zero_()
