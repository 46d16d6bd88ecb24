"""Every model family as a tiny random checkpoint: its real classes from a config, its chat template, 32-pixel tiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from aesr1.contract import PROMPT, TAGS
from aesr1.model.processor import picture_processor
from tiny_model import CHAT_TEMPLATE as QWEN_TEMPLATE

TILE, PATCH = 32, 8
GRID = [[TILE, TILE], [TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE], [3 * TILE, 3 * TILE]]
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "initializer_range": 0.05,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": TILE,
    "patch_size": PATCH,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
QWEN3_5_LAYERS = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
PARTS = (
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
)

SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    + PARTS.replace("IMAGE", "<image>")
    + "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
INTERNVL_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    + PARTS.replace("IMAGE", "<IMG_CONTEXT>\n")
    + "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    + PARTS.replace("IMAGE", "<start_of_image>")
    + "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NEXT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}[INST] "
    + PARTS.replace("IMAGE", "<image>\n")
    + " [/INST]{% else %} {{ message['content'][0]['text'] }}</s>{% endif %}{% endfor %}"
)
GLM_TEMPLATE = (
    "[gMASK]<sop>{{ '\n' }}{% for message in messages %}{{ '<|' + message['role'] + '|>\n' }}"
    + PARTS.replace("IMAGE", "<|begin_of_image|><|image|><|end_of_image|>")
    + "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}"
    "{% if enable_thinking is false %}{{ '<think></think>\n' }}{% endif %}{% endif %}"
)
"""The published templates, less what one question and one answer never reach."""


def _published(name: str) -> str:
    """A published template, as TRL keeps it."""
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()


def _tokenizer(*special: str, eos: str, bos: str | None = None, **named: str) -> Any:
    """Bytes, the special tokens, and one token each for the prompt and the tags; `bos` is put first, as Llama does."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    every = dict.fromkeys(["<pad>", eos, *([bos] if bos else []), *special, *named.values()])
    inner.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in every])
    inner.add_tokens([AddedToken(text, normalized=False) for text in (PROMPT, *TAGS)])
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, inner.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=eos, pad_token="<pad>", bos_token=bos, extra_special_tokens=named
    )


PROCESSORS = {
    "FastVlm": "LlavaProcessor",
    "Qwen3VLMoe": "Qwen3VLProcessor",
    "Qwen3_5": "Qwen3VLProcessor",
    "Qwen3_5Moe": "Qwen3VLProcessor",
}
"""Families whose processor has another name."""


def _save(folder: Path, family: str, tokenizer: Any, image_processor: Any, template: str, **of: Any) -> Path:
    """Random weights from the config `of["config"]`, and the processor of `of["processor"]`."""
    ids = tokenizer.convert_tokens_to_ids
    text = {
        **TEXT,
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        **of.get("text", {}),
    }
    config = {
        name: ids(value) if isinstance(value, str) and "token" in name else value
        for name, value in of["config"].items()
    }
    made = getattr(transformers, f"{family}Config")(
        text_config=text, vision_config={**VISION, **of.get("vision", {})}, tie_word_embeddings=True, **config
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForConditionalGeneration")(made)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    make = picture_processor(getattr(transformers, PROCESSORS.get(family, f"{family}Processor")))
    parts = {"image_processor": image_processor, "tokenizer": tokenizer, "chat_template": template}
    make(**parts, **of.get("processor", {})).save_pretrained(folder)
    return folder


def _qwen(
    family: str, vision: dict[str, Any], *, interleaved: bool = False, template: str = QWEN_TEMPLATE, **text: Any
) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        marks = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
        tokenizer = _tokenizer("<|im_start|>", *marks, eos="<|im_end|>")
        pictures = transformers.Qwen2VLImageProcessorPil(
            patch_size=PATCH, merge_size=2, size={"shortest_edge": 256, "longest_edge": 4 * TILE**2}
        )
        names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
        rope = {"rope_theta": 1e4, "mrope_section": [2, 3, 3], "partial_rotary_factor": 1.0, "rope_type": "default"}
        return _save(
            folder,
            family,
            tokenizer,
            pictures,
            template,
            config=dict(zip(names, marks, strict=True)),
            text={"rope_parameters": rope | ({"mrope_interleaved": True} if interleaved else {}), **text},
            vision={"depth": 2, "num_heads": 2, "spatial_merge_size": 2, **vision},
        )

    return build


def _glm(family: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        names = ("image_start", "image_end", "video_start", "video_end", "image", "video")
        marks = [f"<|{mark}|>" for mark in ("begin_of_image", "end_of_image", "begin_of_video", "end_of_video")]
        marks += ["<|image|>", "<|video|>"]
        tokenizer = _tokenizer("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", *marks, eos="<|endoftext|>")
        pictures = getattr(transformers, f"{family}ImageProcessorPil")(
            patch_size=PATCH, merge_size=2, size={"shortest_edge": 512, "longest_edge": 8 * TILE**2}
        )
        return _save(
            folder,
            family,
            tokenizer,
            pictures,
            GLM_TEMPLATE,
            config={f"{name}_token_id": mark for name, mark in zip(names, marks, strict=True)},
            text={
                "model_type": "glm4v_text",
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1e4,
                    "partial_rotary_factor": 1.0,
                    "mrope_section": [2, 3, 3],
                },
            },
            vision={
                "model_type": "glm4v_vision",
                "depth": 2,
                "num_heads": 2,
                "spatial_merge_size": 2,
                "out_hidden_size": 64,
            },
        )

    return build


def _splitting(family: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        cells = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
        tokenizer = _tokenizer(
            "<|im_start|>", "<image>", "<fake_token_around_image>", "<global-img>", *cells, eos="<end_of_utterance>"
        )
        pictures = getattr(transformers, f"{family}ImageProcessorPil")(
            size={"longest_edge": 4 * TILE}, max_image_size={"longest_edge": TILE}
        )
        return _save(
            folder,
            family,
            tokenizer,
            pictures,
            SMOLVLM_TEMPLATE,
            config={"image_token_id": "<image>", "scale_factor": 2},
            text={"model_type": "llama"},
            processor={"image_seq_len": 4},
        )

    return build


def _internvl(folder: Path) -> Path:
    tokenizer = _tokenizer(
        "<|im_start|>",
        eos="<|im_end|>",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    pictures = transformers.GotOcr2ImageProcessorPil(
        size={"height": TILE, "width": TILE}, crop_to_patches=True, min_patches=1, max_patches=12
    )
    return _save(
        folder,
        "InternVL",
        tokenizer,
        pictures,
        INTERNVL_TEMPLATE,
        config={"image_token_id": "<IMG_CONTEXT>", "image_seq_length": 4},
        text={"model_type": "qwen2"},
        vision={"image_size": [TILE, TILE], "patch_size": [PATCH, PATCH]},
        processor={"image_seq_length": 4},
    )


def _gemma3(folder: Path) -> Path:
    tokenizer = _tokenizer(
        "<start_of_turn>",
        eos="<end_of_turn>",
        bos="<bos>",
        image_token="<image_soft_token>",
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
    )
    return _save(
        folder,
        "Gemma3",
        tokenizer,
        transformers.Gemma3ImageProcessorPil(size={"height": TILE, "width": TILE}),
        GEMMA_TEMPLATE,
        config={
            "image_token_index": "<image_soft_token>",
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
            "mm_tokens_per_image": 4,
        },
        text={"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
        vision={"model_type": "siglip_vision_model", "vision_use_head": False},
        processor={"image_seq_length": 4},
    )


def _gemma4(folder: Path) -> Path:
    """With per-layer embeddings, and the last two layers using the keys and values of the first two (E2B, E4B)."""
    marks = {"image": "<|image|>", "boi": "<|image>", "eoi": "<image|>"}
    marks |= {"audio": "<|audio|>", "boa": "<|audio>", "eoa": "<audio|>"}
    named = {f"{name}_token": mark for name, mark in marks.items()}
    tokenizer = _tokenizer("<|turn>", "<|video|>", eos="<turn|>", bos="<bos>", **named)
    return _save(
        folder,
        "Gemma4",
        tokenizer,
        transformers.Gemma4ImageProcessorPil(patch_size=PATCH, pooling_kernel_size=2),
        _published("gemma4_v5"),
        config={
            **{f"{name}_token_id": marks[name] for name in ("image", "boi", "eoi", "boa", "audio")},
            "eoa_token_index": marks["eoa"],
            "video_token_id": "<|video|>",
        },
        text={
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "sliding_window": 16,
            "global_head_dim": 32,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": len(tokenizer),
            "use_bidirectional_attention": "vision",
        },
        vision={
            "num_key_value_heads": 2,
            "head_dim": 16,
            "pooling_kernel_size": 2,
            "position_embedding_size": 256,
        },
        processor={"feature_extractor": transformers.Gemma4AudioFeatureExtractor()},
    )


def _onevision(folder: Path) -> Path:
    return _save(
        folder,
        "LlavaOnevision",
        _tokenizer("<|im_start|>", "<image>", "<video>", eos="<|im_end|>"),
        transformers.LlavaOnevisionImageProcessorPil(size={"height": TILE, "width": TILE}, image_grid_pinpoints=GRID),
        ONEVISION_TEMPLATE,
        config={"image_token_index": "<image>", "video_token_index": "<video>", "image_grid_pinpoints": GRID},
        text={"model_type": "qwen2"},
        vision={"model_type": "siglip_vision_model", "vision_use_head": False},
        processor={"num_image_tokens": (TILE // PATCH) ** 2, "vision_feature_select_strategy": "full"},
    )


def _next(folder: Path) -> Path:
    return _save(
        folder,
        "LlavaNext",
        _tokenizer("<image>", eos="</s>", bos="<s>"),
        transformers.LlavaNextImageProcessorPil(
            size={"shortest_edge": TILE}, crop_size={"height": TILE, "width": TILE}, image_grid_pinpoints=GRID
        ),
        NEXT_TEMPLATE,
        config={"image_token_index": "<image>", "image_grid_pinpoints": GRID, "image_seq_length": (TILE // PATCH) ** 2},
        text={"model_type": "llama"},
        vision={"model_type": "clip_vision_model"},
        processor={
            "patch_size": PATCH,
            "num_additional_image_tokens": 1,
            "vision_feature_select_strategy": "default",
        },
    )


def _fastvlm(folder: Path) -> Path:
    """With a small EfficientNet as tower, as the embedded photo model has; the published ones need timm."""
    tokenizer = _tokenizer("<|im_start|>", eos="<|im_end|>", image_token="<image>")
    return _save(
        folder,
        "FastVlm",
        tokenizer,
        transformers.CLIPImageProcessorPil(size={"height": TILE, "width": TILE}, do_center_crop=False),
        QWEN_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<image>"),
        config={"image_token_index": "<image>", "image_seq_length": (TILE // PATCH) ** 2},
        text={"model_type": "qwen2"},
        vision={
            "model_type": "efficientnet",
            "width_coefficient": 0.1,
            "depth_coefficient": 1.0,
            "in_channels": [32, 16],
            "out_channels": [16, 24],
            "kernel_sizes": [3, 3],
            "strides": [2, 2],
            "num_block_repeats": [1, 2],
            "expand_ratios": [1, 6],
            "hidden_dim": 128,
            "hidden_size": 128,
        },
        processor={"patch_size": PATCH, "num_additional_image_tokens": 0, "vision_feature_select_strategy": "full"},
    )


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "qwen2-vl": _qwen("Qwen2VL", {"embed_dim": 32, "hidden_size": 64}),
    "qwen2.5-vl": _qwen("Qwen2_5_VL", {"out_hidden_size": 64, "window_size": 32, "fullatt_block_indexes": [1]}),
    "qwen3-vl": _qwen(
        "Qwen3VL",
        {"out_hidden_size": 64, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        interleaved=True,
    ),
    "qwen3-vl-moe": _qwen(
        "Qwen3VLMoe",
        {"out_hidden_size": 64, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        interleaved=True,
        **EXPERTS,
    ),
    "qwen3.5": _qwen(
        "Qwen3_5",
        {"out_hidden_size": 64, "num_position_embeddings": 64},
        interleaved=True,
        template=_published("qwen3_5_think"),
        **QWEN3_5_LAYERS,
    ),
    "qwen3.5-moe": _qwen(
        "Qwen3_5Moe",
        {"out_hidden_size": 64, "num_position_embeddings": 64},
        interleaved=True,
        template=_published("qwen3_5_think"),
        **QWEN3_5_LAYERS,
        **EXPERTS,
        shared_expert_intermediate_size=32,
    ),
    "glm-4.1v": _glm("Glm4v"),
    "glm-4.6v": _glm("Glm46V"),
    "smolvlm": _splitting("SmolVLM"),
    "idefics3": _splitting("Idefics3"),
    "internvl": _internvl,
    "gemma3": _gemma3,
    "gemma4": _gemma4,
    "llava-onevision": _onevision,
    "llava-next": _next,
    "fastvlm": _fastvlm,
}
"""Each writes its checkpoint into an empty folder and returns it."""
