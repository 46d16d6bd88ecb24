"""A cache with gradients: one pass fills it with a prefix, and later passes only read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DummyLayer, DynamicLayer, LinearAttentionLayer
from transformers.modeling_layers import GradientCheckpointingLayer


class _Recorded(DynamicLayer):  # type: ignore[misc]
    """Holds the keys and values that it was given last: a layer that is computed again gives the same."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.is_initialized, self.keys, self.values = True, key_states, value_states
        return key_states, value_states


class _Prefix(DynamicLayer):  # type: ignore[misc]
    """Keys and values that new ones are appended to, without keeping those."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.is_initialized, self.keys, self.values = True, keys, values
        self.dtype, self.device = keys.dtype, keys.device

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


class _RecordedStates(LinearAttentionLayer):  # type: ignore[misc]
    """As `_Recorded` for a linear-attention layer. A layer that is computed again starts without a state as well."""

    def update_conv_state(
        self, conv_states: torch.Tensor, state_idx: int = 0, conv_kernel_size: int | None = None, **_: Any
    ) -> torch.Tensor:
        kernel = conv_kernel_size or conv_states.shape[-1]
        padded = pad(conv_states, (max(0, kernel - conv_states.shape[-1]), 0))
        self.conv_states[state_idx] = padded[..., -kernel:]
        return padded

    def update_recurrent_state(self, recurrent_states: torch.Tensor, state_idx: int = 0, **_: Any) -> torch.Tensor:
        self.recurrent_states[state_idx] = recurrent_states
        return recurrent_states


class _PrefixStates(LinearAttentionLayer):  # type: ignore[misc]
    """States that new tokens go on from, without changing them."""

    def __init__(self, recorded: _RecordedStates, times: int) -> None:
        super().__init__(recorded.number_of_states)
        for states, known in (
            (self.conv_states, recorded.conv_states),
            (self.recurrent_states, recorded.recurrent_states),
        ):
            states.update({i: None if state is None else _for_rows(state, times) for i, state in known.items()})
        self.has_previous_state = dict.fromkeys(self.conv_states, True)

    def update_conv_state(self, conv_states: torch.Tensor, state_idx: int = 0, **_: Any) -> torch.Tensor:
        return torch.cat([self.conv_states[state_idx], conv_states], dim=-1)

    def update_recurrent_state(self, recurrent_states: torch.Tensor, state_idx: int = 0, **_: Any) -> torch.Tensor:
        return recurrent_states


def _for_rows(states: torch.Tensor, times: int) -> torch.Tensor:
    return states.repeat_interleave(times, dim=0)


def recording_cache(config: Any) -> DynamicCache:
    """An empty cache for one pass over prefixes."""
    cache = DynamicCache(config=config)
    cache.layers = [_recorded(layer) for layer in cache.layers]
    return cache


def _recorded(layer: Any) -> Any:
    if isinstance(layer, LinearAttentionLayer):
        return _RecordedStates(layer.number_of_states)
    return layer if isinstance(layer, DummyLayer) else _Recorded()


def repeated(cache: DynamicCache, times: int) -> DynamicCache:
    """The recorded prefixes, each for `times` rows in a row. Gradients of the rows add up in the prefix."""
    copied = DynamicCache()
    copied.layers = [_repeated(layer, times) for layer in cache.layers]
    return copied


def _repeated(layer: Any, times: int) -> Any:
    if isinstance(layer, _RecordedStates):
        return _PrefixStates(layer, times)
    if isinstance(layer, DummyLayer):
        return layer
    return _Prefix(_for_rows(layer.keys, times), _for_rows(layer.values, times))


@contextmanager
def checkpointing_keeps_cache(model: torch.nn.Module) -> Iterator[None]:
    """Gradient checkpointing drops a cache, because computing a layer again would fill it twice; ours may stay."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer._can_checkpoint_with_cache = True
    try:
        yield
    finally:
        for layer in layers:
            del layer._can_checkpoint_with_cache
