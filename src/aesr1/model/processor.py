"""The processor of any model family for one picture a row: no video, limited picture tokens."""

from __future__ import annotations

from functools import lru_cache
from math import isqrt
from typing import Any

import numpy as np
import transformers
from transformers import PROCESSOR_MAPPING, Gemma4Processor, Idefics3Processor, ProcessorMixin
from transformers.image_utils import make_flat_list_of_images
from transformers.models.auto.video_processing_auto import get_video_processor_config

from aesr1.errors import AesError

VIDEO = "video_processor"


class _WithoutVideo(ProcessorMixin):  # type: ignore[misc]
    """Comes after a family's class, and takes a video processor that is None, which transformers' class refuses."""

    def __init__(self, *parts: Any, video_processor: None = None, **named: Any) -> None:
        super().__init__(*parts, **named)


class _Gemma4Processor(Gemma4Processor, _WithoutVideo):  # type: ignore[misc]
    """Gemma 4's processor, which cannot be made without a video processor. It has the parameters of transformers'."""

    def __init__(
        self,
        feature_extractor: Any,
        image_processor: Any,
        tokenizer: Any,
        video_processor: Any = None,
        chat_template: Any = None,
        image_seq_length: int = 280,
        audio_seq_length: int = 750,
        audio_ms_per_token: int = 40,
    ) -> None:
        super().__init__(
            feature_extractor,
            image_processor,
            tokenizer,
            video_processor,
            chat_template=chat_template,
            image_seq_length=image_seq_length,
            audio_seq_length=audio_seq_length,
            audio_ms_per_token=audio_ms_per_token,
        )


_SUBSTITUTES = {"SmolVLMProcessor": Idefics3Processor, "Gemma4Processor": _Gemma4Processor}
"""SmolVLM's processor cannot be made without num2words, which spells the number of a video's frames; it reads
pictures as Idefics3's does."""
_SOFT_TOKENS = (70, 140, 280, 560, 1120)
"""The largest numbers of picture tokens that Gemma 4 was trained with; its processor refuses others."""
_REPLY_MARK = "REPLY"
"""Takes the place of a reply, to find what a template puts after one."""


class PictureProcessor:
    """Changes to a family's processor; `picture_processor` puts this class before the family's own."""

    tokenizer: Any
    image_processor: Any
    chat_template: Any
    family: type  # transformers' class
    video_settings: dict[str, Any] | None = None  # the checkpoint's; None where the family has no video

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The parts that are saved and loaded: all except the video processor, which needs torchvision."""
        return [name for name in super().get_attributes() if name != VIDEO]  # type: ignore[misc]

    @property
    def unused_input_names(self) -> list[str]:
        """LLaVA-OneVision counts each row's pictures; here it is always one, and TRL knows no such input."""
        return [*super().unused_input_names, "batch_num_images"]  # type: ignore[misc]

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        """As the family's, without a second beginning-of-text token."""
        first = text[0] if isinstance(text, list) and text else text
        start = self.tokenizer.bos_token
        if start and isinstance(first, str) and first.startswith(start):
            kwargs.setdefault("add_special_tokens", False)
        return super().__call__(images=images, text=text, **kwargs)  # type: ignore[misc]

    def _process_images(self, images: Any, **kwargs: Any) -> tuple[Any, list[str]]:
        """As the family's, but a repeated picture is prepared once: TRL passes it again for every reply.

        Only for families with a grid of patches, or with one square a picture; others arrange their tiles in
        different ways.
        """
        pictures = make_flat_list_of_images(images)
        index_of: dict[tuple[tuple[int, int], bytes], int] = {}
        indices = [index_of.setdefault((image.size, image.tobytes()), len(index_of)) for image in pictures]
        has_grid = "image_grid_thw" in self.image_processor.model_input_names
        if len(index_of) == len(pictures) or not (has_grid or self.family is transformers.LlavaProcessor):
            return super()._process_images(images, **kwargs)  # type: ignore[misc, no-any-return]
        distinct = [pictures[indices.index(index)] for index in range(len(index_of))]
        processed, texts = super()._process_images(distinct, **kwargs)  # type: ignore[misc]
        if not has_grid:
            processed["pixel_values"] = np.asarray(processed["pixel_values"])[indices]
            return processed, [texts[index] for index in indices]
        grid = processed["image_grid_thw"]
        ends = np.cumsum(np.asarray(grid).prod(axis=-1))
        patches = [np.arange(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        processed["image_grid_thw"] = grid[indices]
        processed["pixel_values"] = processed["pixel_values"][np.concatenate([patches[index] for index in indices])]
        return processed, [texts[index] for index in indices]

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        """As the family's, but with the same tokens in training (where TRL adds none) as in generation.

        A beginning-of-text token that the tokenizer would add is written out. Templates that know of thinking leave
        it off: the contract's reasoning is part of the reply. A reply starts where the generation prompt ends and is
        written as it is, and an end token follows. SmolVLM's and LLaVA-OneVision's templates put a space or a line
        break before it, Qwen3.5's would take the reasoning out, and GLM's ends no reply; training would teach that.
        """
        render = super().apply_chat_template  # type: ignore[misc]
        if "enable_thinking" in str(kwargs.get("chat_template") or self.chat_template):
            kwargs.setdefault("enable_thinking", False)
        text = render(conversation, *args, **kwargs)
        if not isinstance(text, str) or kwargs.get("continue_final_message"):
            return text
        if len(conversation) > 1 and conversation[-1]["role"] == "assistant":
            content = conversation[-1]["content"]
            reply = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
            marked = _REPLY_MARK if isinstance(content, str) else [{"type": "text", "text": _REPLY_MARK}]
            question = render(conversation[:-1], *args, **{**kwargs, "add_generation_prompt": True})
            answer = render([*conversation[:-1], {**conversation[-1], "content": marked}], *args, **kwargs)
            text = question + reply + (answer.rpartition(_REPLY_MARK)[2] or self.tokenizer.eos_token)
        start = self.tokenizer.bos_token
        added = bool(start) and self.tokenizer("")["input_ids"][:1] == [self.tokenizer.bos_token_id]
        return start + text if added and not text.startswith(start) else text

    def to_dict(self) -> dict[str, Any]:
        """As the family's, with the video settings that transformers' own class needs."""
        settings: dict[str, Any] = super().to_dict()  # type: ignore[misc]
        return settings if self.video_settings is None else {**settings, VIDEO: self.video_settings}

    def __reduce__(self) -> tuple[Any, ...]:
        """For data loader workers: a class made at run time cannot be pickled by name."""
        return _without_init, (self.family,), self.__dict__


@lru_cache
def picture_processor(family: type) -> Any:
    """A family's processor class (transformers') with the changes of `PictureProcessor`, under the same name."""
    parts = (PictureProcessor, _SUBSTITUTES.get(family.__name__, family))
    has_video = VIDEO in family.get_attributes()  # type: ignore[attr-defined]
    return type(family.__name__, parts, {"family": family, "video_settings": {} if has_video else None})


def _without_init(family: type) -> Any:
    processor_class = picture_processor(family)
    return processor_class.__new__(processor_class)


def load_processor(path: str, config: Any, *, max_pixels: int) -> Any:
    """A processor that pads left and limits picture tokens (see `limit_picture_tokens`).

    `config` is the model's. AesError where transformers has no processor for it, or where it still pads right.
    """
    class_name = ProcessorMixin.get_processor_dict(path)[0].get("processor_class") or ""
    family = getattr(transformers, class_name, None) or PROCESSOR_MAPPING.get(type(config), None)
    if family is None:
        raise AesError(
            f"transformers has no processor for {path}, whose model type is {config.model_type}",
            fix="choose a model whose pictures transformers itself prepares",
        )
    processor = picture_processor(family).from_pretrained(path, padding_side="left", trust_remote_code=False)
    processor.tokenizer.padding_side = "left"
    if processor.tokenizer(["a", "a a a"], padding=True)["attention_mask"][0][-1] == 0:
        raise AesError(
            f"the tokenizer of {path} always pads right, so that replies would start after padding",
            fix="choose another checkpoint of this model, or one whose tokenizer is of a class of transformers' own",
        )
    if processor.video_settings is not None:
        processor.video_settings = get_video_processor_config(path)
    limit_picture_tokens(processor.image_processor, max_pixels=max_pixels)
    return processor


def limit_picture_tokens(image_processor: Any, *, max_pixels: int) -> None:
    """Limit the tokens of a picture by `max_pixels`, for each family in its own way.

    Qwen-VL and GLM-V: pictures are shrunk to max_pixels. Families that cut a picture into square tiles of a fixed
    size, with an overview: no more tiles than fit into max_pixels, but at least one, or the smallest grid that the
    model has. At 262,144 pixels that is one view for SmolVLM (512², 64 tokens), Idefics3 (364², 169) and InternVL
    (448², 256); a tile of 384² and an overview for LLaVA-OneVision (at most 1,485); two tiles of 336² and an overview
    for LLaVA-NeXT (at most 1,776). Gemma 3 gets every picture as 896² in 256 tokens; its pan and scan is off. Gemma 4
    gets a picture in at most one of five numbers of tokens, each of 48²: 70 at 262,144 pixels.
    """
    size = getattr(image_processor, "size", None) or {}
    grid = getattr(image_processor, "image_grid_pinpoints", None)
    if grid:
        areas = sorted((height * width, [height, width]) for height, width in grid)
        image_processor.image_grid_pinpoints = [shape for area, shape in areas if area <= max_pixels] or [areas[0][1]]
    elif hasattr(image_processor, "do_image_splitting"):
        tile = image_processor.max_image_size["longest_edge"]
        side = max(1, isqrt(max_pixels) // tile) * tile
        image_processor.size = {"longest_edge": min(size.get("longest_edge") or side, side)}
    elif hasattr(image_processor, "crop_to_patches"):
        tiles = max_pixels // (size["height"] * size["width"])
        image_processor.max_patches = max(1, min(image_processor.max_patches, tiles))
        image_processor.min_patches = min(image_processor.min_patches, image_processor.max_patches)
    elif hasattr(image_processor, "max_soft_tokens"):
        token_pixels = (image_processor.patch_size * image_processor.pooling_kernel_size) ** 2
        most = min(image_processor.max_soft_tokens, max_pixels // token_pixels)
        image_processor.max_soft_tokens = max((n for n in _SOFT_TOKENS if n <= most), default=_SOFT_TOKENS[0])
    elif size.get("longest_edge") and size.get("shortest_edge"):
        counts_frames = type(image_processor).__name__.startswith("Glm4")  # a picture is the frames of one patch
        most = max_pixels * (image_processor.temporal_patch_size if counts_frames else 1)
        image_processor.size = {name: min(size[name], most) for name in ("shortest_edge", "longest_edge")}


def picture_length(processor: Any, size: tuple[int, int]) -> int:
    """The number of tokens of a picture of this (width, height); its area where the processor has no such number."""
    try:
        (tokens,) = processor._get_num_multimodal_tokens(image_sizes=[size[::-1]])["num_image_tokens"]
    except (AttributeError, NotImplementedError, KeyError, TypeError):  # some families do not have this method
        return size[0] * size[1]
    return int(tokens)
