"""The score that a model expects: read from its probabilities of every answer, not from the one it draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from aesr1.contract import ANSWER_OPEN, PROMPT, SCORE_TEXTS
from aesr1.errors import AesError
from aesr1.vlm import Vlm, inputs_about


class Expectation(NamedTuple):
    """Mean and standard deviation of the score under the model, both 0–1."""

    score: float
    spread: float


@torch.inference_mode()
def expect_scores(
    vlm: Vlm, images: Sequence[Image.Image], prefixes: Sequence[str], *, prompt: str = PROMPT
) -> list[Expectation]:
    """The score's expectation after each prefix (a reply up to where its score is due); NaN from a broken model.

    Every answer of two decimals, 0.00–1.00, is weighed by the product of its tokens' probabilities. One
    prefill, then one short forward pass of the tree of digits from its cache.
    """
    tree = _score_tree(vlm.processor.tokenizer)
    inputs = inputs_about(vlm, images, prefixes, prompt)
    mask = inputs["attention_mask"]
    first = vlm.model(**inputs, **_first_positions(vlm.model, mask), use_cache=True, logits_to_keep=1)
    batch, (paths, depth) = len(images), tree.paths.shape
    cache = first.past_key_values
    cache.batch_repeat_interleave(paths)
    tokens = torch.as_tensor(tree.paths, device=mask.device).repeat(batch, 1)
    mask = torch.cat([mask.repeat_interleave(paths, dim=0), torch.ones_like(tokens)], dim=1)
    rest = vlm.model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=_positions(vlm.model, mask, depth),
        past_key_values=cache,
        use_cache=True,
    ).logits
    root = torch.log_softmax(first.logits[:, -1].float(), dim=-1)
    inner = torch.log_softmax(rest.float(), dim=-1).reshape(batch, paths, depth, -1)
    log_p = root[:, tree.tokens[:, 0]]
    for level in range(1, tree.tokens.shape[1]):
        step = inner[:, tree.path_of[:, level], level - 1, tree.tokens[:, level]]
        log_p = log_p + torch.where(torch.as_tensor(tree.lengths > level, device=step.device), step, 0.0)
    weights = torch.softmax(log_p, dim=-1).double().cpu().numpy()
    values = np.arange(len(SCORE_TEXTS)) / (len(SCORE_TEXTS) - 1)
    means = weights @ values
    spreads = np.sqrt(np.maximum(0.0, weights @ values**2 - means**2))
    return [Expectation(float(mean), float(spread)) for mean, spread in zip(means, spreads, strict=True)]


def _first_positions(model: Any, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Position ids of left-padded inputs, which most families would count from the padding on; Qwen-VL does not."""
    if hasattr(getattr(model, "model", None), "rope_deltas"):
        return {}
    return {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}


def _positions(model: Any, mask: torch.Tensor, length: int) -> torch.Tensor:
    """Position ids of the last `length` columns; Qwen-VL's three-axis positions go on from the picture's offset."""
    positions = (mask.cumsum(-1) - 1)[:, -length:]
    deltas: torch.Tensor | None = getattr(getattr(model, "model", None), "rope_deltas", None)
    if deltas is None:
        return positions
    return (positions + deltas.repeat_interleave(len(mask) // len(deltas), dim=0)).expand(3, -1, -1)


class _ScoreTree(NamedTuple):
    """The 101 answers as token sequences, and the fewest sequences whose forward pass shows all their steps."""

    tokens: Any  # (101, L) ids, padded with 0
    lengths: Any  # (101,)
    paths: Any  # (P, L − 1) ids
    path_of: Any  # (101, L) the path that passes through an answer's first l tokens


def _score_tree(tokenizer: Any) -> _ScoreTree:
    head = tokenizer(ANSWER_OPEN, add_special_tokens=False)["input_ids"]
    answers = []
    for text in SCORE_TEXTS:
        whole = tokenizer(ANSWER_OPEN + text, add_special_tokens=False)["input_ids"]
        if whole[: len(head)] != head:
            raise AesError(
                f"this model's tokenizer joins the answer tag and the score {text}, so its score tokens cannot be read",
                fix="score with --samples 1 or more at a temperature instead of the expectation",
            )
        answers.append(tuple(whole[len(head) :]))
    longest = max(map(len, answers))
    inner = {answer[:-1] for answer in answers}
    paths = sorted(path for path in inner if not any(other[: len(path)] == path for other in inner - {path}))
    return _ScoreTree(
        tokens=np.array([answer + (0,) * (longest - len(answer)) for answer in answers]),
        lengths=np.array([len(answer) for answer in answers]),
        paths=np.array([path + (path[-1],) * (longest - 1 - len(path)) for path in paths]),
        path_of=np.array(
            [
                [
                    next(
                        i
                        for i, path in enumerate(paths)
                        if path[: min(level, len(answer) - 1)] == answer[: min(level, len(answer) - 1)]
                    )
                    for level in range(longest)
                ]
                for answer in answers
            ]
        ),
    )
