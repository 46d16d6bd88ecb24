"""A Qwen-VL processor without its video half, which alone needs torchvision."""

from __future__ import annotations

from typing import Any

from transformers import Qwen2_5_VLProcessor


class ImageOnlyProcessor(Qwen2_5_VLProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Qwen2.5-VL's processor for pictures alone, on transformers' PIL backend."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The parts that are saved and loaded: all of Qwen's but the video processor."""
        return ["image_processor", "tokenizer"]

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **_: Any
    ) -> None:
        # chat_template is positional: from_pretrained passes on only what it finds among the positional names
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template)
