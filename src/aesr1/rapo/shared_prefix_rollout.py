"""The rollout that reads a picture once for all replies of its group."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import gcd
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import Trainer
from trl.extras.profiling import profiling_context
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.utils import pad

from aesr1.model.generate import picture_tokens
from aesr1.model.kv_cache import can_repeat_cache, prefill
from aesr1.model.sampling import end_tokens, sample_replies, sampling_settings
from aesr1.training.parameters import unwrap_lora

Fields = dict[str, Any]


class RolloutGroups(NamedTuple):
    """The different prompts of a batch, and the number of replies to each."""

    ids: list[list[int]]
    rows: list[Fields]
    replies: int


def shared_prefix_rollout(
    trainer: Any, prompt_ids: list[list[int]], images: Any, fields: Fields
) -> list[list[int]] | None:
    """Replies to a GRPOTrainer's prompts, in their order, each up to its first end token, sampled as TRL would.

    `fields`: the processor's tensors and per-token lists, as TRL hands them over. None where TRL must do it: for
    other engines, sharded weights, settings or caches that need `generate`, and rows that do not form groups.
    """
    sharded = trainer.is_fsdp_enabled or (trainer._dist.is_zero3 and not trainer.args.ds3_gather_for_generation)
    if trainer.use_vllm or trainer.use_transformers_continuous_batching or sharded:
        return None
    if images is None or any(row is None or len(row) != 1 for row in images):
        return None
    config, model = trainer.generation_config, unwrap_lora(trainer.accelerator.unwrap_model(trainer.model_wrapped))
    sampling = sampling_settings(config, model)
    groups = find_groups(prompt_ids, fields, picture_ids=picture_tokens(model.config) or ())
    if sampling is None or groups is None or not can_repeat_cache(model):
        return None
    inputs = Trainer._prepare_inputs(trainer, _model_inputs(groups, padding=trainer._tokenizer.pad_token_id))
    with (
        profiling_context(trainer, "transformers.generate"),
        unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            gather_deepspeed3_params=trainer.args.ds3_gather_for_generation,
            generation_kwargs=trainer.generation_kwargs,
            gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
        ) as unwrapped,
        torch.no_grad(),
    ):
        model = unwrap_lora(unwrapped)
        return sample_replies(
            model,
            prefill(model, inputs),
            replies=groups.replies,
            sampling=sampling,
            max_new_tokens=config.max_new_tokens,
            eos=end_tokens(config),
        )


def find_groups(ids: Sequence[list[int]], fields: Fields, *, picture_ids: Collection[int]) -> RolloutGroups | None:
    """The rows of a batch with equal neighbours merged; None where no two are equal, or a field cannot be split."""
    rows = split_rows(ids, fields, picture_ids=picture_ids)
    if rows is None:
        return None
    starts = [i for i in range(len(ids)) if i == 0 or ids[i] != ids[i - 1] or not _equal_fields(rows[i], rows[i - 1])]
    replies = gcd(len(ids), *starts)
    if replies < 2:
        return None
    return RolloutGroups([*ids[::replies]], rows[::replies], replies)


def _equal_fields(one: Fields, other: Fields) -> bool:
    return all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )


def split_rows(ids: Sequence[list[int]], fields: Fields, *, picture_ids: Collection[int]) -> list[Fields] | None:
    """The processor's fields by row, one picture in each; None for a field that matches neither rows nor tiles.

    Qwen-VL's patches are counted by their grid, InternVL's tiles by the picture tokens of a row; other families
    have one entry a row.
    """
    rows: list[Fields] = [{} for _ in ids]
    for name, value in fields.items():
        if isinstance(value, list) and value and isinstance(value[0], list):  # one a token
            parts: Sequence[Any] = value
        else:
            tensor = value if isinstance(value, torch.Tensor) else torch.tensor(np.array(value))
            sizes: list[int] | None = [1] * len(ids)
            if name == "pixel_values" and "image_grid_thw" in fields:
                sizes = fields["image_grid_thw"].prod(-1).tolist()
            elif name == "pixel_values" and len(tensor) != len(ids):
                sizes = _tiles_per_row([sum(id_ in picture_ids for id_ in row) for row in ids], len(tensor))
            if sizes is None or sum(sizes) != len(tensor):
                return None
            parts = torch.split(tensor, sizes)
        if len(parts) != len(ids):
            return None
        for row, part in zip(rows, parts, strict=True):
            row[name] = part
    return rows


def _tiles_per_row(tokens: Sequence[int], tiles: int) -> list[int] | None:
    """The number of tiles of each row; every tile has the same number of picture tokens."""
    tokens_per_tile, rest = divmod(sum(tokens), tiles)
    if rest or not tokens_per_tile or any(count % tokens_per_tile for count in tokens):
        return None
    return [count // tokens_per_tile for count in tokens]


def _model_inputs(groups: RolloutGroups, *, padding: int) -> Fields:
    """Left-padded model inputs, a row a group."""

    def padded(rows: Sequence[list[int]], value: int) -> torch.Tensor:
        tensor: torch.Tensor = pad([torch.tensor(row) for row in rows], padding_value=value, padding_side="left")
        return tensor

    inputs: Fields = {
        "input_ids": padded(groups.ids, padding),
        "attention_mask": padded([[1] * len(row) for row in groups.ids], 0),
    }
    for name, first in groups.rows[0].items():
        parts = [row[name] for row in groups.rows]
        inputs[name] = torch.cat(parts) if isinstance(first, torch.Tensor) else padded(parts, 0)
    return inputs
