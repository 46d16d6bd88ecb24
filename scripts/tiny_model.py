"""Builds the tiny Qwen2.5-VL (about three million parameters) from a config, with the real classes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from aesr1.contract import PROMPT, TAGS
from aesr1.model.checkpoint import stamp_checkpoint
from aesr1.model.processor import picture_processor

PATCH = 8
VIEW_PIXELS = 112 * 112
"""Largest picture size of the tiny model: 49 picture tokens of 16 × 16 pixels."""

ROPE_THETA = 20.0
"""Qwen encodes columns in the lowest frequencies. With its theta of 10⁶, eight columns differ by 0.001 radians, and a
model this small never learns left and right. With 20 they differ by half a radian or more."""
INITIAL_WEIGHTS = 0.04

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2.5-VL's template, without its default system message and video."""


def build_tokenizer(
    corpus: Iterable[str], *, special: tuple[str, ...], prompts: tuple[str, ...], vocab_size: int
) -> PreTrainedTokenizerFast:
    """A byte-level BPE vocabulary trained on a corpus; digits are single tokens, as in Qwen.

    The contract's prompt, the other fixed prompts and the tags are one token each. Otherwise nine tenths of the
    computation would go into the prompt, which never changes. special: the first is for padding; one is <|im_end|>.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in (PROMPT, *prompts, *TAGS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token=special[0],
        additional_special_tokens=list(special[1:]),
        padding_side="left",
        model_max_length=4096,
    )


def build_processor(corpus: Iterable[str], *, prompts: tuple[str, ...], vocab_size: int = 768) -> Any:
    """A processor with a vocabulary trained on a corpus (`build_tokenizer`)."""
    tokenizer = build_tokenizer(corpus, special=SPECIAL, prompts=prompts, vocab_size=vocab_size)
    image_processor = Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        temporal_patch_size=1,
        merge_size=2,
        size={"shortest_edge": (4 * PATCH) ** 2, "longest_edge": VIEW_PIXELS},
    )
    return picture_processor(Qwen2_5_VLProcessor)(image_processor, tokenizer, chat_template=CHAT_TEMPLATE)


def build_model(processor: Any, *, seed: int, width: int = 192, layers: int = 4) -> Qwen2_5_VLForConditionalGeneration:
    """A model with random weights for the vocabulary and patches of a processor; float32, on the CPU."""
    ids = processor.tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(processor.tokenizer),
            "hidden_size": width,
            "intermediate_size": width * 8 // 3,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 32,
            "num_key_value_heads": max(1, width // 96),
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA, "mrope_section": [2, 7, 7]},
            "initializer_range": INITIAL_WEIGHTS,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_heads": 4,
            "out_hidden_size": width,
            "patch_size": PATCH,
            "temporal_patch_size": 1,
            "spatial_merge_size": 2,
            "window_size": 8 * PATCH,
            "fullatt_block_indexes": [0, 1, 2, 3],
            "initializer_range": INITIAL_WEIGHTS,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids("<|im_end|>")
    model.generation_config.pad_token_id = ids("<|endoftext|>")
    return model


def save_half(model: Any, processor: Any, output: Path, *, stage: str) -> None:
    """Write an embedded checkpoint in half precision, for a smaller package; it is loaded as float32."""
    half = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    model.config.dtype = torch.float16
    model.save_pretrained(output, state_dict=half)
    processor.save_pretrained(output)
    stamp_checkpoint(output, stage=stage)
