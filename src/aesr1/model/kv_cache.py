"""A key-value cache that is filled once and repeated for several replies."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from transformers import (
    DynamicCache,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

SPARE_COLUMNS = 64
"""A cache grows by this many columns."""


def can_repeat_cache(model: Any) -> bool:
    """Whether this family's cache has only keys and values, so that rows can be repeated and removed."""
    if model.config.is_encoder_decoder or not hasattr(model.config, "get_text_config"):
        return False
    return {type(layer) for layer in DynamicCache(config=model.config).layers} <= {
        DynamicLayer,
        DynamicSlidingWindowLayer,
    }


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """A layer with spare columns for new keys and values. transformers' own layer copies all of them at every token."""

    keys: torch.Tensor
    values: torch.Tensor
    _room: list[torch.Tensor] | None = None  # keys and values are its first columns

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As DynamicLayer's."""
        if not self.is_initialized:
            return super().update(key_states, value_states)  # type: ignore[no-any-return]
        seen, new = self.keys.shape[-2], key_states.shape[-2]
        room = self._room
        if room is None or room[0].shape[-2] < seen + new:
            room = [
                old.new_empty(*old.shape[:2], seen + new + SPARE_COLUMNS, old.shape[3])
                for old in (self.keys, self.values)
            ]
            for wide, old in zip(room, (self.keys, self.values), strict=True):
                wide[..., :seen, :] = old
        for wide, states in zip(room, (key_states, value_states), strict=True):
            wide[..., seen : seen + new, :] = states
        self._room, (self.keys, self.values) = room, (wide[..., : seen + new, :] for wide in room)
        return self.keys, self.values

    def apart(self) -> PreallocatedLayer:
        """A copy that grows separately."""
        other = copy.copy(self)
        other._room = None
        return other

    def batch_repeat_interleave(self, repeats: int) -> None:
        """As DynamicLayer's."""
        super().batch_repeat_interleave(repeats)
        self._room = None

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """As DynamicLayer's."""
        super().batch_select_indices(indices)
        self._room = None


@dataclass(frozen=True)
class Prefill:
    """What a model has read so far, for N rows.

    The cache grows in place; `repeated` returns a copy to continue from.
    """

    cache: Any
    logits: torch.Tensor  # (N, V), of the last token
    tokens: torch.Tensor  # (N, L)
    mask: torch.Tensor  # (N, L), 0 = padding
    deltas: torch.Tensor | None  # (N, 1), offset of Qwen-VL's three-axis positions from the number of tokens

    def repeated(self, times: int, rows: torch.Tensor | None = None) -> Prefill:
        """These rows (None: all), each repeated `times` times. The copy shares nothing that a step changes."""
        cache = copy.copy(self.cache)
        cache.layers = [
            layer.apart() if isinstance(layer, PreallocatedLayer) else copy.copy(layer) for layer in self.cache.layers
        ]
        if rows is not None:
            cache.batch_select_indices(rows)
        if times > 1:
            cache.batch_repeat_interleave(times)

        def repeat(tensor: torch.Tensor) -> torch.Tensor:
            return (tensor if rows is None else tensor[rows]).repeat_interleave(times, dim=0)

        deltas = None if self.deltas is None else repeat(self.deltas)
        return Prefill(cache, repeat(self.logits), repeat(self.tokens), repeat(self.mask), deltas)

    @property
    def slides(self) -> bool:
        """Whether a layer sees only a window of the last columns; padding between tokens would make it smaller."""
        return any(isinstance(layer, DynamicSlidingWindowLayer) for layer in self.cache.layers)


def prefill(model: Any, inputs: Any) -> Prefill:
    """Read left-padded inputs with pictures into a cache."""
    mask = inputs["attention_mask"]
    cache = DynamicCache(config=model.config)
    cache.layers = [PreallocatedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    mrope = hasattr(getattr(model, "model", None), "rope_deltas")
    # most families count positions after the padding; Qwen-VL computes its own from mask and pictures
    positions = {} if mrope else {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    read = model(**inputs, **positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
    deltas = model.model.rope_deltas if mrope else None
    return Prefill(cache, read.logits[:, -1], inputs["input_ids"], mask, deltas)


class Extended(NamedTuple):
    """A prefill after more tokens, and the logits of the last tokens."""

    after: Prefill
    logits: torch.Tensor  # (N, kept, V)


def extend(
    model: Any, before: Prefill, tokens: torch.Tensor, *, mask: torch.Tensor | None = None, keep: int
) -> Extended:
    """Read more tokens (N, T) and keep the logits of the last `keep`; the cache of `before` grows in place."""
    seen = torch.ones_like(tokens) if mask is None else mask
    whole = torch.cat([before.mask, seen], dim=1)
    positions = (whole.cumsum(-1) - 1)[:, -tokens.shape[1] :]
    if before.deltas is not None:
        positions = (positions + before.deltas).expand(3, -1, -1)
    logits = model(
        input_ids=tokens,
        attention_mask=whole,
        position_ids=positions,
        past_key_values=before.cache,
        use_cache=True,
        logits_to_keep=keep,
    ).logits
    every = torch.cat([before.tokens, tokens], dim=1)
    return Extended(replace(before, logits=logits[:, -1], tokens=every, mask=whole), logits)
