"""A key-value cache with gradients: one pass fills it with a prefix, and later passes only read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
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


def recording_cache(config: Any) -> DynamicCache:
    """An empty cache for one pass over prefixes."""
    cache = DynamicCache(config=config)
    cache.layers = [_Recorded() for _ in cache.layers]
    return cache


def repeated(cache: DynamicCache, times: int) -> DynamicCache:
    """The recorded prefixes, each for `times` rows in a row. Gradients of the rows add up in the prefix."""
    copied = DynamicCache()
    copied.layers = [
        _Prefix(*(states.repeat_interleave(times, dim=0) for states in (layer.keys, layer.values)))
        for layer in cache.layers
    ]
    return copied


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
