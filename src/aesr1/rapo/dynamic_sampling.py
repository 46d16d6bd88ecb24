"""Replaces groups with zero advantage by groups of other images (DAPO's dynamic sampling).

As in DAPO (arXiv 2503.14476), but whole groups are replaced within a generation batch of fixed size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from aesr1.errors import AesError
from aesr1.rapo.shared_prefix_batch import PICTURE_INPUTS

PADDED_LEFT = ("prompt_ids", "prompt_mask")
PADDED_BOTH = ("token_type_ids", "mm_token_type_ids")  # for prompt and reply
ZERO_STD = 1e-6
"""A reward_std below this is rounding."""

Batch = dict[str, Any]


def zero_advantage_groups(rewards: torch.Tensor, replies: int) -> list[int]:
    """Numbers of the groups whose rewards (rows,) are all equal; a group has `replies` rows."""
    groups: list[int] = torch.nonzero(rewards.reshape(-1, replies).std(dim=1) < ZERO_STD).flatten().tolist()
    return groups


def replacement_rows(count: int, domains: Sequence[str], *, seed: Sequence[int], process: int) -> list[int]:
    """Rows of the training set to use instead; the same for the same seeds, so that a resumed run is equal.

    All are of one data set of `domains` (one name a row), the same for all processes: a random row's.
    """
    chosen = domains[int(np.random.default_rng(list(seed)).integers(len(domains)))]
    of_chosen = np.flatnonzero([domain == chosen for domain in domains])
    rng = np.random.default_rng([*seed, process])
    rows: list[int] = rng.choice(of_chosen, size=count, replace=count > len(of_chosen)).tolist()
    return rows


def replace_groups(batch: Batch, other: Batch, *, old_rows: Sequence[int], new_rows: Sequence[int], pad: int) -> Batch:
    """`batch` (TRL's dictionary of a generation batch) with rows `old_rows` replaced by rows `new_rows` of `other`.

    Prompts are padded left and replies right to the wider of the two, with the tokenizer's `pad`; pictures to the same
    number of tiles. AesError where the two batches do not fit each other.
    """
    prompt = max(batch["prompt_ids"].shape[1], other["prompt_ids"].shape[1])
    reply = max(batch["completion_ids"].shape[1], other["completion_ids"].shape[1])
    padded = _with_equal_picture_shapes(*(_pad_columns(part, prompt, reply, pad) for part in (batch, other)))
    ours, theirs = (dict(split_pixel_values_by_grid(part)) for part in padded)
    if mismatch := _mismatch(ours, theirs):
        raise AesError(
            f"groups of this model family cannot be replaced: {mismatch}", fix="set dynamic_sampling_rounds: 0"
        )
    mixed: Batch = {}
    for name, rows in ours.items():
        if isinstance(rows, list):
            mixed[name] = list(rows)
            for old, new in zip(old_rows, new_rows, strict=True):
                mixed[name][old] = theirs[name][new]
        elif isinstance(rows, torch.Tensor) and rows.ndim > 0:
            mixed[name] = rows.clone()
            mixed[name][list(old_rows)] = theirs[name][list(new_rows)]
        else:
            mixed[name] = rows
    return dict(unsplit_pixel_values_by_grid(mixed))


def _with_equal_picture_shapes(batch: Batch, other: Batch) -> tuple[Batch, Batch]:
    """Both batches with pictures of one shape.

    Some processors (Idefics3, SmolVLM, LLaVA) pad each batch to its largest picture with zeros at the end of every
    axis, which the model ignores. Here the two batches are padded in the same way.
    """
    both = dict(batch), dict(other)
    for name in PICTURE_INPUTS:
        if all(isinstance(part.get(name), torch.Tensor) for part in both):
            shapes = [part[name].shape[1:] for part in both]
            if len(shapes[0]) == len(shapes[1]):
                shape = [max(sizes) for sizes in zip(*shapes, strict=True)]
                for part in both:
                    part[name] = _pad_to_shape(part[name], shape)
    return both


def _pad_to_shape(rows: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Rows padded with zeros at the end of their other axes, up to `shape`."""
    padding = [size - current for size, current in zip(shape, rows.shape[1:], strict=True)]
    return (
        torch.nn.functional.pad(rows, [n for columns in reversed(padding) for n in (0, columns)])
        if any(padding)
        else rows
    )


def _mismatch(ours: Batch, theirs: Batch) -> str:
    """Why two batches cannot be mixed; empty where they can."""
    for name, rows in ours.items():
        other: Any = theirs.get(name)
        if type(rows) is not type(other):
            return f"{name} is in one of two batches only"
        if isinstance(rows, torch.Tensor) and rows.shape[1:] != other.shape[1:]:
            return f"two batches' {name} have shapes {tuple(rows.shape)} and {tuple(other.shape)}"
        if isinstance(rows, list) and isinstance(rows[0], torch.Tensor) and rows[0].shape[1:] != other[0].shape[1:]:
            return f"two batches' {name} have rows of shapes {tuple(rows[0].shape)} and {tuple(other[0].shape)}"
    return ""


def _pad_columns(batch: Batch, prompt: int, reply: int, pad: int) -> Batch:
    """The batch with prompts `prompt` and replies `reply` columns wide."""
    left = prompt - batch["prompt_ids"].shape[1]
    reply_width = batch["completion_ids"].shape[1]
    right = reply - reply_width
    padded = dict(batch)
    for name, rows in batch.items():
        if not isinstance(rows, torch.Tensor) or rows.ndim != 2:
            continue
        value = pad if name in ("prompt_ids", "completion_ids") else 0
        if name in PADDED_LEFT:
            padded[name] = torch.nn.functional.pad(rows, (left, 0), value=value)
        elif name in PADDED_BOTH:
            padded[name] = torch.nn.functional.pad(rows, (left, right))
        elif name.startswith(("completion_", "old_", "ref_", "sampling_")) or (
            name == "importance_sampling_ratio" and rows.shape[1] == reply_width
        ):
            padded[name] = torch.nn.functional.pad(rows, (0, right), value=value)
    return padded
