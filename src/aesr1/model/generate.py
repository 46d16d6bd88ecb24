"""Replies of a loaded model about pictures; a picture is read once for all its replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig

from aesr1.contract import PROMPT
from aesr1.errors import AesError
from aesr1.model.kv_cache import Prefill, can_repeat_cache, prefill
from aesr1.model.load import Vlm
from aesr1.model.sampling import end_tokens, sample_replies, sampling_settings


def chat_prompt(vlm: Vlm, prompt: str) -> str:
    """The prompt about one image in the model's chat template, up to the start of the answer."""
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
    return str(vlm.processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False))


def model_inputs(vlm: Vlm, images: Sequence[Image.Image], answers: Sequence[str], prompt: str) -> Any:
    """Left-padded model inputs: the prompt about each image, followed by the beginning of an answer."""
    question = chat_prompt(vlm, prompt)
    return text_inputs(vlm, images, [question + answer for answer in answers])


def text_inputs(vlm: Vlm, images: Sequence[Image.Image], texts: Sequence[str]) -> Any:
    """Left-padded model inputs: texts in the model's chat template, each about one image."""
    inputs = vlm.processor(text=list(texts), images=[[image] for image in images], return_tensors="pt", padding=True)
    return inputs.to(vlm.model.device, dtype=vlm.model.dtype)


@dataclass(frozen=True)
class PicturePrefill:
    """Pictures and question after the prefill. Any number of replies and scores can start from here."""

    images: tuple[Image.Image, ...]
    question: str  # in the model's chat template, up to the start of the answer
    inputs: Any
    start: Prefill | None  # None: the cache of this family cannot be repeated; it reads again for every reply


def prefill_pictures(vlm: Vlm, images: Sequence[Image.Image], *, prompt: str = PROMPT) -> PicturePrefill:
    """Run the prefill of the prompt about each image, once."""
    return prefill_question(vlm, images, chat_prompt(vlm, prompt))


@torch.inference_mode()
def prefill_question(vlm: Vlm, images: Sequence[Image.Image], question: str) -> PicturePrefill:
    """As `prefill_pictures`, of a question that is in the model's chat template already."""
    inputs = text_inputs(vlm, images, [question] * len(images))
    start = prefill(vlm.model, inputs) if can_repeat_cache(vlm.model) else None
    return PicturePrefill(tuple(images), question, inputs, start)


@torch.inference_mode()
def generate_replies(
    vlm: Vlm,
    prefilled: PicturePrefill,
    *,
    samples: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    max_new_tokens: int = 512,
    seed: int = 0,
) -> list[list[str]]:
    """`samples` raw replies about each of n pictures: n lists of K texts.

    Temperature 0 is greedy and deterministic (then K must be 1); above 0 the sampling is seeded. top_k 0: all tokens.
    """
    if samples > 1 and not temperature > 0:
        raise AesError(
            f"{samples} samples at temperature 0 would all be the same", fix="give a temperature, the paper's is 0.6"
        )
    options: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if temperature > 0:
        options = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": top_k}
    config = GenerationConfig(
        **options,
        repetition_penalty=1.0,
        max_new_tokens=max_new_tokens,
        suppress_tokens=picture_tokens(vlm.model.config),
        pad_token_id=vlm.processor.tokenizer.pad_token_id,
    )
    sampling = sampling_settings(config, vlm.model)
    if prefilled.start is None or sampling is None:
        torch.manual_seed(seed)
        config.num_return_sequences = samples
        tokens = vlm.model.generate(**prefilled.inputs, generation_config=config)
        replies = tokens[:, prefilled.inputs["input_ids"].shape[1] :].tolist()
    else:
        replies = sample_replies(
            vlm.model,
            prefilled.start,
            replies=samples,
            sampling=sampling,
            max_new_tokens=max_new_tokens,
            eos=end_tokens(vlm.model.generation_config),
            generator=torch.Generator(vlm.model.device).manual_seed(seed),
        )
    texts = vlm.processor.batch_decode(replies, skip_special_tokens=True)
    return [texts[start : start + samples] for start in range(0, len(texts), samples)]


def generate(
    vlm: Vlm,
    images: Sequence[Image.Image],
    *,
    samples: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 512,
    seed: int = 0,
    prompt: str = PROMPT,
) -> list[list[str]]:
    """As `generate_replies`, with its own prefill."""
    prefilled = prefill_pictures(vlm, images, prompt=prompt)
    return generate_replies(
        vlm, prefilled, samples=samples, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed
    )


def picture_tokens(config: Any) -> list[int] | None:
    """Tokens that mean pictures. A reply must not hold one, because its picture would be missing."""
    names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
    return sorted({token for name in names if isinstance(token := getattr(config, name, None), int)}) or None
