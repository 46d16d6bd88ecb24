"""The inputs of that pass: one row holds picture, prompt and the K replies, with its attention mask.

A row is [prompt without its last token | last token, reply 1 | last token, reply 2 | …]. The prompt's last token is
before every reply, at the same position, because it predicts the reply's first token. So the model's own forward pass
with shifted labels gives the log-probabilities of each reply. Tokens: P − 1 + K (R + 1) instead of K (P + R).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

PICTURES = ("pixel_values", "image_grid_thw", "pixel_attention_mask", "spatial_shapes", "image_sizes")
"""The model inputs of a picture."""
COUNTS = ("num_images", "num_tiles")
"""Counts that TRL keeps with them."""


class Packed(NamedTuple):
    """G rows for G groups of K replies."""

    input_ids: torch.Tensor  # (G, T), padded right
    attention_mask: torch.Tensor  # (G, 1, T, T), True where a token (row) attends to another (column)
    position_ids: torch.Tensor  # (G, T), or (3, G, T) for Qwen-VL
    labels: torch.Tensor  # (G, T): replies' tokens, −100 elsewhere
    places: torch.Tensor  # (G · K, R): the column of each reply token; 0 after the end of the reply

    def of_replies(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Values for the labels of columns 1 … T − 1, (G, T − 1), by reply: (G · K, R), 0 where `mask` is 0."""
        replies = len(self.places) // len(values)
        rows = values.repeat_interleave(replies, dim=0)
        return rows.gather(1, (self.places - 1).clamp(min=0)) * mask


def pack_groups(
    prompts: torch.Tensor,
    prompt_mask: torch.Tensor,
    positions: torch.Tensor,
    replies: torch.Tensor,
    reply_mask: torch.Tensor,
    *,
    pad: int,
) -> Packed:
    """Rows of groups. prompts, prompt_mask (G, P), padded left; positions (G, P) or (3, G, P) of the prompts' tokens.

    replies, reply_mask (G · K, R), padded right, group by group.
    """
    groups = len(prompts)
    k = len(replies) // groups
    lengths = reply_mask.sum(dim=1).tolist()
    sizes = prompt_mask.sum(dim=1).tolist()
    width = max(size - 1 + sum(1 + n for n in lengths[g * k : (g + 1) * k]) for g, size in enumerate(sizes))
    axes = positions if positions.dim() == 3 else positions[None]
    ids = prompts.new_full((groups, width), pad)
    labels = prompts.new_full((groups, width), -100)
    segment = prompts.new_full((groups, width), -1)
    where = axes.new_zeros((len(axes), groups, width))
    places = torch.zeros_like(replies)
    for g, size in enumerate(sizes):
        whole, at = prompts[g, -size:], axes[:, g, -size:]
        end = size - 1
        ids[g, :end], where[:, g, :end], segment[g, :end] = whole[:-1], at[:, :-1], 0
        after = at.max() + 1
        for row in range(g * k, (g + 1) * k):
            n = lengths[row]
            span = slice(end + 1, end + 1 + n)
            ids[g, end], ids[g, span] = whole[-1], replies[row, :n]
            where[:, g, end] = at[:, -1]
            where[:, g, span] = after + torch.arange(n, device=at.device)
            segment[g, end : end + 1 + n] = row - g * k + 1
            labels[g, span] = replies[row, :n]
            places[row, :n] = torch.arange(span.start, span.stop, device=places.device)
            end += 1 + n
    return Packed(ids, _sees(segment), where if positions.dim() == 3 else where[0], labels, places)


def _sees(segment: torch.Tensor) -> torch.Tensor:
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


def rows_of_groups(pictures: dict[str, Any], replies: int) -> dict[str, Any]:
    """The picture inputs of the first row of each group, by row, from TRL's for all rows."""
    by_row = split_pixel_values_by_grid({name: value for name, value in pictures.items() if value is not None})
    picked = {name: value[::replies] for name, value in by_row.items()}
    return {name: v.contiguous() if isinstance(v, torch.Tensor) else v for name, v in picked.items()}


def group_inputs(rows: dict[str, Any], chunk: slice) -> dict[str, Any]:
    """The model's picture inputs for some groups, from `rows_of_groups`."""
    whole = unsplit_pixel_values_by_grid({name: value[chunk] for name, value in rows.items()})
    return {name: value for name, value in whole.items() if name in PICTURES}


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
