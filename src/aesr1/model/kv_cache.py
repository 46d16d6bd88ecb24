"""A cache of keys, values and recurrent states that is filled once and repeated for several replies."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache
from transformers.cache_utils import (
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
)

SPARE_COLUMNS = 64
"""A cache grows by this many columns."""


def can_repeat_cache(model: Any) -> bool:
    """Whether rows of this family's cache can be repeated and removed: it has keys and values or recurrent states."""
    if model.config.is_encoder_decoder or not hasattr(model.config, "get_text_config"):
        return False
    return {type(layer) for layer in DynamicCache(config=model.config).layers} <= {
        DynamicLayer,
        DynamicSlidingWindowLayer,
        LinearAttentionLayer,
        DummyLayer,  # uses the keys and values of an earlier layer (Gemma 4)
    }


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """A layer with spare columns for new keys and values. transformers' own layer copies all of them at every token."""

    keys: torch.Tensor
    values: torch.Tensor
    _buffers: list[torch.Tensor] | None = None  # keys and values are their first columns

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As DynamicLayer's."""
        if not self.is_initialized:
            return super().update(key_states, value_states)  # type: ignore[no-any-return]
        length, new = self.keys.shape[-2], key_states.shape[-2]
        buffers = self._buffers
        if buffers is None or buffers[0].shape[-2] < length + new:
            buffers = [
                old.new_empty(*old.shape[:2], length + new + SPARE_COLUMNS, old.shape[3])
                for old in (self.keys, self.values)
            ]
            for buffer, old in zip(buffers, (self.keys, self.values), strict=True):
                buffer[..., :length, :] = old
        for buffer, states in zip(buffers, (key_states, value_states), strict=True):
            buffer[..., length : length + new, :] = states
        self._buffers, (self.keys, self.values) = buffers, (buffer[..., : length + new, :] for buffer in buffers)
        return self.keys, self.values

    def fork(self) -> PreallocatedLayer:
        """A copy that grows separately."""
        copied = copy.copy(self)
        copied._buffers = None
        return copied

    def batch_repeat_interleave(self, repeats: int) -> None:
        """As DynamicLayer's."""
        super().batch_repeat_interleave(repeats)
        self._buffers = None

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """As DynamicLayer's."""
        super().batch_select_indices(indices)
        self._buffers = None


class RecurrentLayer(LinearAttentionLayer):  # type: ignore[misc]
    """The states of a linear-attention layer (Qwen3.5). A step changes them in place."""

    def fork(self) -> RecurrentLayer:
        """A copy that goes on separately."""
        return copy.deepcopy(self)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """As DynamicLayer's."""
        rows = torch.arange(len(self.conv_states[0]), device=self.device)
        self.batch_select_indices(rows.repeat_interleave(repeats))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """As DynamicLayer's."""
        self.reorder_cache(indices)


def _own_layer(layer: Any) -> Any:
    """Our layer in place of an empty one of transformers'; the layer itself where we have none."""
    if type(layer) is LinearAttentionLayer:
        return RecurrentLayer(layer.number_of_states)
    return PreallocatedLayer() if type(layer) is DynamicLayer else layer


@dataclass(frozen=True)
class Prefill:
    """The state of a model after N rows of tokens: cache, logits of the last token, tokens and mask.

    The cache grows in place; `repeat` returns a copy to continue from.
    """

    cache: Any
    logits: torch.Tensor  # (N, V), of the last token
    tokens: torch.Tensor  # (N, L)
    mask: torch.Tensor  # (N, L), 0 = padding
    rope_deltas: torch.Tensor | None  # (N, 1), offset of Qwen-VL's three-axis positions from the number of tokens

    def repeat(self, times: int, rows: torch.Tensor | None = None) -> Prefill:
        """These rows (None: all), each repeated `times` times. The copy shares nothing that a step changes."""
        cache = copy.copy(self.cache)
        cache.layers = [
            layer.fork() if isinstance(layer, PreallocatedLayer | RecurrentLayer) else copy.copy(layer)
            for layer in self.cache.layers
        ]
        if rows is not None:
            cache.batch_select_indices(rows)
        if times > 1:
            cache.batch_repeat_interleave(times)

        def repeat_rows(tensor: torch.Tensor) -> torch.Tensor:
            return (tensor if rows is None else tensor[rows]).repeat_interleave(times, dim=0)

        rope_deltas = None if self.rope_deltas is None else repeat_rows(self.rope_deltas)
        return Prefill(cache, repeat_rows(self.logits), repeat_rows(self.tokens), repeat_rows(self.mask), rope_deltas)

    @property
    def must_be_contiguous(self) -> bool:
        """Whether padding between tokens would change what a layer computes.

        It would make a sliding window smaller, and a recurrent state would decay over it.
        """
        contiguous = (DynamicSlidingWindowLayer, LinearAttentionCacheLayerMixin)
        return any(isinstance(layer, contiguous) for layer in self.cache.layers)


def _no_router_loss(model: Any) -> dict[str, bool]:
    """For a mixture of experts whose config asks for the loss of its routers, which cannot be of a part of the mask."""
    has_routers = hasattr(getattr(model.config, "text_config", None), "output_router_logits")
    return {"output_router_logits": False} if has_routers else {}


def prefill(model: Any, inputs: Any) -> Prefill:
    """Read left-padded inputs with pictures into a cache."""
    mask = inputs["attention_mask"]
    cache = DynamicCache(config=model.config)
    cache.layers = [_own_layer(layer) for layer in cache.layers]
    mrope = hasattr(getattr(model, "model", None), "rope_deltas")
    # most families count positions after the padding; Qwen-VL computes its own from mask and pictures
    positions = {} if mrope else {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    options = {**positions, **_no_router_loss(model)}
    outputs = model(**inputs, **options, past_key_values=cache, use_cache=True, logits_to_keep=1)
    rope_deltas = model.model.rope_deltas if mrope else None
    return Prefill(cache, outputs.logits[:, -1], inputs["input_ids"], mask, rope_deltas)


class Extended(NamedTuple):
    """A prefill after more tokens, and the logits of the last tokens."""

    after: Prefill
    logits: torch.Tensor  # (N, kept, V)


def extend(
    model: Any, before: Prefill, tokens: torch.Tensor, *, mask: torch.Tensor | None = None, keep: int
) -> Extended:
    """Read more tokens (N, T) and keep the logits of the last `keep`; the cache of `before` grows in place."""
    new_mask = torch.ones_like(tokens) if mask is None else mask
    full_mask = torch.cat([before.mask, new_mask], dim=1)
    positions = (full_mask.cumsum(-1) - 1)[:, -tokens.shape[1] :]
    if before.rope_deltas is not None:
        positions = (positions + before.rope_deltas).expand(3, -1, -1)
    logits = model(
        input_ids=tokens,
        attention_mask=full_mask,
        position_ids=positions,
        past_key_values=before.cache,
        use_cache=True,
        logits_to_keep=keep,
        **_no_router_loss(model),
    ).logits
    all_tokens = torch.cat([before.tokens, tokens], dim=1)
    return Extended(replace(before, logits=logits[:, -1], tokens=all_tokens, mask=full_mask), logits)
