"""The inputs of that pass: one row holds picture, prompt and the K replies, with its attention mask.

A row is [prompt without its last token | last token, reply 1 | last token, reply 2 | …]. The prompt's last token is
before every reply, at the same position, because it predicts the reply's first token. So the model's own forward pass
with shifted labels gives the log-probabilities of each reply. Tokens: P − 1 + K (R + 1) instead of K (P + R).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

PICTURE_INPUTS = ("pixel_values", "image_grid_thw", "pixel_attention_mask", "spatial_shapes", "image_sizes")
"""The model inputs of a picture."""
PICTURE_COUNTS = ("num_images", "num_tiles")
"""Counts that TRL keeps with them."""


class PackedGroups(NamedTuple):
    """G rows for G groups of K replies."""

    input_ids: torch.Tensor  # (G, T), padded right
    attention_mask: torch.Tensor  # (G, 1, T, T), True where a token (row) attends to another (column)
    position_ids: torch.Tensor  # (G, T), or (3, G, T) for Qwen-VL
    labels: torch.Tensor  # (G, T): replies' tokens, −100 elsewhere
    columns: torch.Tensor  # (G · K, R): the column of each reply token; 0 after the end of the reply

    def by_reply(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Values for the labels of columns 1 … T − 1, (G, T − 1), by reply: (G · K, R), 0 where `mask` is 0."""
        replies = len(self.columns) // len(values)
        rows = values.repeat_interleave(replies, dim=0)
        return rows.gather(1, (self.columns - 1).clamp(min=0)) * mask


def pack_groups(
    prompts: torch.Tensor,
    prompt_mask: torch.Tensor,
    positions: torch.Tensor,
    replies: torch.Tensor,
    reply_mask: torch.Tensor,
    *,
    pad: int,
) -> PackedGroups:
    """Rows of groups. prompts, prompt_mask (G, P), padded left; positions (G, P) or (3, G, P) of the prompts' tokens.

    replies, reply_mask (G · K, R), padded right, group by group.
    """
    groups = len(prompts)
    k = len(replies) // groups
    reply_lengths = reply_mask.sum(dim=1).tolist()
    prompt_lengths = prompt_mask.sum(dim=1).tolist()
    width = max(n - 1 + sum(1 + r for r in reply_lengths[g * k : (g + 1) * k]) for g, n in enumerate(prompt_lengths))
    axes = positions if positions.dim() == 3 else positions[None]
    input_ids = prompts.new_full((groups, width), pad)
    labels = prompts.new_full((groups, width), -100)
    segment = prompts.new_full((groups, width), -1)
    position_ids = axes.new_zeros((len(axes), groups, width))
    columns = torch.zeros_like(replies)
    for g, prompt_length in enumerate(prompt_lengths):
        prompt, prompt_axes = prompts[g, -prompt_length:], axes[:, g, -prompt_length:]
        end = prompt_length - 1
        input_ids[g, :end], position_ids[:, g, :end], segment[g, :end] = prompt[:-1], prompt_axes[:, :-1], 0
        next_position = prompt_axes.max() + 1
        for row in range(g * k, (g + 1) * k):
            length = reply_lengths[row]
            span = slice(end + 1, end + 1 + length)
            input_ids[g, end], input_ids[g, span] = prompt[-1], replies[row, :length]
            position_ids[:, g, end] = prompt_axes[:, -1]
            position_ids[:, g, span] = next_position + torch.arange(length, device=axes.device)
            segment[g, end : end + 1 + length] = row - g * k + 1
            labels[g, span] = replies[row, :length]
            columns[row, :length] = torch.arange(span.start, span.stop, device=columns.device)
            end += 1 + length
    if positions.dim() == 2:
        position_ids = position_ids[0]
    return PackedGroups(input_ids, _attention_mask(segment), position_ids, labels, columns)


def _attention_mask(segment: torch.Tensor) -> torch.Tensor:
    """(G, 1, T, T): a token attends to earlier tokens of the prompt (segment 0) and of its own reply.

    Padding attends to itself only: a row of the softmax must not be empty.
    """
    width = segment.shape[1]
    columns = torch.arange(width, device=segment.device)
    before = columns[None, :] <= columns[:, None]
    own = segment[:, :, None] == segment[:, None, :]
    shared = (segment[:, None, :] == 0) & (segment[:, :, None] > 0)
    padding = (segment < 0)[:, :, None]
    itself = columns[None, :] == columns[:, None]
    return torch.where(padding, itself, before & (own | shared))[:, None]


def picture_rows(pictures: dict[str, Any], replies: int) -> dict[str, Any]:
    """The picture inputs of the first row of each group, by row, from TRL's for all rows."""
    rows = split_pixel_values_by_grid({name: value for name, value in pictures.items() if value is not None})
    first_rows = {name: value[::replies] for name, value in rows.items()}
    return {name: v.contiguous() if isinstance(v, torch.Tensor) else v for name, v in first_rows.items()}


def picture_inputs(rows: dict[str, Any], chunk: slice) -> dict[str, Any]:
    """The model's picture inputs for some groups, from `picture_rows`."""
    inputs = unsplit_pixel_values_by_grid({name: value[chunk] for name, value in rows.items()})
    return {name: value for name, value in inputs.items() if name in PICTURE_INPUTS}


def prompt_positions(model: Any, ids: torch.Tensor, mask: torch.Tensor, **pictures: Any) -> torch.Tensor:
    """Positions of prompts (G, P) as the model computes them: (3, G, P) for Qwen-VL, else (G, P)."""
    for part in (model, getattr(model, "model", None)):
        if (rope_index := getattr(part, "get_rope_index", None)) is not None:
            axes: torch.Tensor = rope_index(
                ids,
                attention_mask=mask,
                image_grid_thw=pictures["image_grid_thw"],
                mm_token_type_ids=pictures["mm_token_type_ids"],
            )[0]
            return axes
    return (mask.cumsum(dim=1) - 1).clamp(min=0)
