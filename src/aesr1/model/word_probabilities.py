"""The probabilities of a few words as the next word of an answer, from one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from aesr1.errors import AesError
from aesr1.model.generate import text_inputs
from aesr1.model.kv_cache import prefill
from aesr1.model.load import Vlm


@torch.inference_mode()
def word_probabilities(vlm: Vlm, images: Sequence[Image.Image], text: str, words: Sequence[str]) -> NDArray[np.float64]:
    """The probability of each word after the text, about each image: (n, W), rows sum to 1; NaN from a broken model.

    text: question and beginning of an answer in the model's chat template. words: with the space before them. Of a
    word of several tokens the first counts, as in Q-Align. AesError where two words have the same first token.
    """
    tokens = _first_tokens(vlm.processor.tokenizer, text, words)
    logits = prefill(vlm.model, text_inputs(vlm, images, [text] * len(images))).logits
    probabilities: NDArray[np.float64] = torch.softmax(logits[:, tokens].double(), dim=-1).cpu().numpy()
    return probabilities


def _first_tokens(tokenizer: Any, text: str, words: Sequence[str]) -> list[int]:
    start, *whole = tokenizer([text, *(text + word for word in words)], add_special_tokens=False)["input_ids"]
    if any(ids[: len(start)] != start or len(ids) == len(start) for ids in whole):
        raise AesError(
            f"this model's tokenizer merges the words with the text before them: {text[-40:]!r}",
            fix="choose a stem that ends with a whole word, or let the words begin with a space",
        )
    tokens = [ids[len(start)] for ids in whole]
    if len(set(tokens)) < len(tokens):
        raise AesError(
            f"the words {', '.join(words)} do not begin with different tokens of this model",
            fix="choose other words in the profile",
        )
    return tokens
