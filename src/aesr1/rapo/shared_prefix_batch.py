"""The inputs of those passes: the prompts, the replies after them, the pictures, and the positions of both."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

PICTURE_INPUTS = (
    "pixel_values",
    "image_grid_thw",
    "pixel_attention_mask",
    "spatial_shapes",
    "image_sizes",
    "image_position_ids",
)
"""The model inputs of a picture."""
PICTURE_COUNTS = ("num_images", "num_tiles")
"""Counts that TRL keeps with them."""


class ReplyInputs(NamedTuple):
    """K rows for each of G prompts: the prompt's last token, which predicts the reply's first, and the reply."""

    input_ids: torch.Tensor  # (G · K, 1 + R), padded right
    attention_mask: torch.Tensor  # (G · K, P + R), of the whole prompt and the reply
    position_ids: torch.Tensor  # (G · K, 1 + R), or (3, G · K, 1 + R) for Qwen-VL
    labels: torch.Tensor  # (G · K, 1 + R): the replies' tokens, −100 elsewhere


def reply_inputs(
    ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, *, prompt_length: int, replies: int
) -> ReplyInputs:
    """Rows that go on after the prompts. ids, mask (G · K, P + R), group by group; prompts are padded left.

    positions (G, P) or (3, G, P): those of the prompts' tokens. A reply begins one past the furthest of them.
    """
    reply_mask = mask[:, prompt_length:]
    last = positions[..., -1:].repeat_interleave(replies, dim=-2)
    furthest = (positions if positions.dim() == 2 else positions.amax(dim=0)).amax(dim=1, keepdim=True)
    after = furthest.repeat_interleave(replies, dim=0) + 1 + torch.arange(reply_mask.shape[1], device=ids.device)
    labels = ids[:, prompt_length - 1 :].masked_fill(mask[:, prompt_length - 1 :] == 0, -100)
    labels[:, 0] = -100
    return ReplyInputs(
        ids[:, prompt_length - 1 :],
        mask,
        torch.cat([last, after.expand(*last.shape[:-1], -1)], dim=-1),
        labels,
    )


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
