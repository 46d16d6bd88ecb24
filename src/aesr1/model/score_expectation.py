"""The expected score: the probabilities of all answers 0.00–1.00, not one sampled answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from aesr1.contract import ANSWER_OPEN, PROMPT, SCORE_TEXTS
from aesr1.errors import AesError
from aesr1.model.generate import PicturePrefill, chat_prompt, text_inputs
from aesr1.model.kv_cache import Prefill, extend, prefill
from aesr1.model.load import Vlm


class Expectation(NamedTuple):
    """Mean and standard deviation of the score under the model, both 0–1."""

    score: float
    score_std: float


@torch.inference_mode()
def expect_scores(
    vlm: Vlm, images: Sequence[Image.Image], prefixes: Sequence[str], *, prompt: str = PROMPT
) -> list[Expectation]:
    """The score's expectation after each prefix (a reply up to its score); NaN from a broken model.

    Every answer with two decimals, 0.00–1.00, is weighted by the product of its tokens' probabilities: one
    prefill, then one short forward pass over the tree of digits.
    """
    question = chat_prompt(vlm, prompt)
    return _expect_after_texts(vlm, images, [question + prefix for prefix in prefixes])


def _expect_after_texts(vlm: Vlm, images: Sequence[Image.Image], texts: Sequence[str]) -> list[Expectation]:
    tree = _score_tree(vlm.processor.tokenizer)
    return _expectations(vlm.model, prefill(vlm.model, text_inputs(vlm, images, texts)), tree)


@torch.inference_mode()
def expect_scores_after(vlm: Vlm, prefilled: PicturePrefill, prefixes: Sequence[str]) -> list[Expectation]:
    """As `expect_scores`, after a prefill: K prefixes for each picture, in picture order."""
    replies = len(prefixes) // len(prefilled.images)
    tokens = _prefix_tokens(vlm, prefilled.question, prefixes)
    if prefilled.start is None or tokens is None:
        images = [image for image in prefilled.images for _ in range(replies)]
        return _expect_after_texts(vlm, images, [prefilled.question + prefix for prefix in prefixes])
    tree = _score_tree(vlm.processor.tokenizer)
    lengths = [len(ids) for ids in tokens]
    by_row: dict[int, Expectation] = {}
    unpadded = prefilled.start.must_be_contiguous  # then padding before a prefix would change the score
    for length in sorted(set(lengths)) if unpadded else [max(lengths)]:
        rows = [row for row, own_length in enumerate(lengths) if own_length == length or not unpadded]
        device = prefilled.start.mask.device
        ids = torch.tensor([[0] * (length - lengths[row]) + tokens[row] for row in rows], device=device)
        mask = torch.tensor([[0] * (length - lengths[row]) + [1] * lengths[row] for row in rows], device=device)
        start = prefilled.start.repeat(1, torch.tensor([row // replies for row in rows], device=device))
        after = extend(vlm.model, start, ids, mask=mask, keep=1).after
        by_row.update(zip(rows, _expectations(vlm.model, after, tree), strict=True))
    return [by_row[row] for row in range(len(prefixes))]


def _prefix_tokens(vlm: Vlm, question: str, prefixes: Sequence[str]) -> list[list[int]] | None:
    """The tokens of each prefix after the question; None where the tokenizer merges the two."""
    question_ids, *full_ids = vlm.processor.tokenizer(
        [question, *(question + prefix for prefix in prefixes)], add_special_tokens=False
    )["input_ids"]
    if any(ids[: len(question_ids)] != question_ids or len(ids) == len(question_ids) for ids in full_ids):
        return None
    return [ids[len(question_ids) :] for ids in full_ids]


def _expectations(model: Any, start: Prefill, tree: _ScoreTree) -> list[Expectation]:
    batch, (paths, depth) = len(start.mask), tree.paths.shape
    tokens = torch.as_tensor(tree.paths, device=start.mask.device).repeat(batch, 1)
    path_logits = extend(model, start.repeat(paths), tokens, keep=depth).logits
    root = torch.log_softmax(start.logits.float(), dim=-1)
    inner = torch.log_softmax(path_logits.float(), dim=-1).reshape(batch, paths, depth, -1)
    log_p = root[:, tree.tokens[:, 0]]
    for level in range(1, tree.tokens.shape[1]):
        step = inner[:, tree.path_of[:, level], level - 1, tree.tokens[:, level]]
        log_p = log_p + torch.where(torch.as_tensor(tree.lengths > level, device=step.device), step, 0.0)
    weights = torch.softmax(log_p, dim=-1).double().cpu().numpy()
    values = np.arange(len(SCORE_TEXTS)) / (len(SCORE_TEXTS) - 1)
    means = weights @ values
    stds = np.sqrt(np.maximum(0.0, weights @ values**2 - means**2))
    return [Expectation(float(mean), float(std)) for mean, std in zip(means, stds, strict=True)]


class _ScoreTree(NamedTuple):
    """The 101 answers as token sequences, and the smallest set of paths whose forward pass covers all of them."""

    tokens: Any  # (101, L) ids, padded with 0
    lengths: Any  # (101,)
    paths: Any  # (P, L − 1) ids
    path_of: Any  # (101, L) the path that passes through an answer's first l tokens


def _score_tree(tokenizer: Any) -> _ScoreTree:
    tag_ids = tokenizer(ANSWER_OPEN, add_special_tokens=False)["input_ids"]
    answers = []
    for text in SCORE_TEXTS:
        full_ids = tokenizer(ANSWER_OPEN + text, add_special_tokens=False)["input_ids"]
        if full_ids[: len(tag_ids)] != tag_ids:
            raise AesError(
                f"this model's tokenizer merges the answer tag and the score {text}: score tokens cannot be read",
                fix="score with --samples 1 or more at a temperature instead of the expectation",
            )
        answers.append(tuple(full_ids[len(tag_ids) :]))
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
