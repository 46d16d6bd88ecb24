"""The shapes of Qwen2.5-VL 3B and 7B, so that a dry run of them needs no hub and no download."""

from __future__ import annotations

from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLProcessor, Qwen2VLImageProcessorPil
from transformers.utils.hub import try_to_load_from_cache

from aesr1.model.load import ConfigAndProcessor, check_max_pixels, checkpoint_folder, load_config
from aesr1.model.processor import limit_picture_tokens, picture_processor


class _Text(NamedTuple):
    """The language model, in its config's words. What is not named here is Qwen2_5_VLConfig's default."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    tie_word_embeddings: bool


SHAPES = {
    "Qwen/Qwen2.5-VL-3B-Instruct": _Text(2048, 11008, 36, 16, 2, 151936, True),
    "Qwen/Qwen2.5-VL-7B-Instruct": _Text(3584, 18944, 28, 28, 4, 152064, False),
}
"""By the names of the published models: 3,754,622,976 and 8,292,166,656 parameters."""
VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
"""The vision tower of both."""
READ_FILES = ("config.json", "preprocessor_config.json", "tokenizer_config.json")
"""The files that `load_config` reads at least."""
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where Qwen's tokenizer divides a text before it looks for parts of words."""
_PICTURE = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
_CHAT_TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    f"{{% if part['type'] == 'image' %}}{''.join(_PICTURE)}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def is_bundled(name: str) -> bool:
    """Whether `load_shape` uses a shape of `SHAPES`: the name is there, and no folder or cache has the files."""
    if name not in SHAPES or checkpoint_folder(name):
        return False
    return not all(isinstance(try_to_load_from_cache(name, file), str) for file in READ_FILES)


def load_shape(name: str, *, max_pixels: int) -> ConfigAndProcessor:
    """As `load_config`, for counting alone: where `is_bundled`, nothing is read and no hub is asked.

    The bundled processor counts picture tokens exactly. Its tokenizer takes each word, digit and run of punctuation
    for one token: 81 for the contract's prompt, where Qwen's own vocabulary makes 82, and 102 with the chat template
    (103). AesError as `load_config`.
    """
    if not is_bundled(name):
        return load_config(name, max_pixels=max_pixels)
    check_max_pixels(max_pixels)
    tokenizer = _counting_tokenizer()
    pictures = Qwen2VLImageProcessorPil(
        patch_size=VISION["patch_size"],
        temporal_patch_size=VISION["temporal_patch_size"],
        merge_size=VISION["spatial_merge_size"],
        size={"shortest_edge": 3_136, "longest_edge": 12_845_056},
    )
    limit_picture_tokens(pictures, max_pixels=max_pixels)
    text = SHAPES[name]
    start, picture, end = tokenizer.convert_tokens_to_ids(list(_PICTURE))
    config = Qwen2_5_VLConfig(
        text_config=text._asdict(),
        vision_config={**VISION, "out_hidden_size": text.hidden_size},
        tie_word_embeddings=text.tie_word_embeddings,
        vision_start_token_id=start,
        image_token_id=picture,
        vision_end_token_id=end,
    )
    processor = picture_processor(Qwen2_5_VLProcessor)(pictures, tokenizer, chat_template=_CHAT_TEMPLATE)
    return ConfigAndProcessor(config, processor)


def _counting_tokenizer() -> Any:
    """Qwen's special tokens; every other word is the unknown token."""
    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(_WORDS), behavior="isolated")
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *_PICTURE, "<|video_pad|>")
    words.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
