"""Several replies about a picture that is read once: one prefill, its key-value cache repeated for every reply."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

UNDERSTOOD = frozenset(
    {
        *("do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "suppress_tokens"),
        *("min_new_tokens", "max_new_tokens", "max_length", "eos_token_id", "bos_token_id", "pad_token_id"),
        *("use_cache", "disable_compile", "transformers_version", "_from_model_config"),
    }
)
"""What `drawing_of` can read in a generation config; any other setting is left to `generate`."""
IDLE = {
    **dict.fromkeys(("num_beams", "num_return_sequences", "typical_p", "length_penalty", "guidance_scale"), 1),
    **dict.fromkeys(("min_length", "no_repeat_ngram_size", "epsilon_cutoff", "eta_cutoff"), 0),
}
"""Other settings that may be there, at the values that change nothing."""
SPARE = 64
"""Columns by which a cache grows."""
TOP_K = 50
"""transformers' own, where a config that samples names none."""


def can_share(model: Any) -> bool:
    """Whether this family's cache is keys and values alone, so that it can be repeated and rows can leave it."""
    if model.config.is_encoder_decoder or not hasattr(model.config, "get_text_config"):
        return False
    return {type(layer) for layer in DynamicCache(config=model.config).layers} <= {
        DynamicLayer,
        DynamicSlidingWindowLayer,
    }


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A layer's keys and values that grow into spare columns: transformers' own copies all of them at every token."""

    keys: torch.Tensor
    values: torch.Tensor
    _room: list[torch.Tensor] | None = None  # of which keys and values are the first columns

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As DynamicLayer's."""
        if not self.is_initialized:
            return super().update(key_states, value_states)  # type: ignore[no-any-return]
        seen, new = self.keys.shape[-2], key_states.shape[-2]
        room = self._room
        if room is None or room[0].shape[-2] < seen + new:
            room = [old.new_empty(*old.shape[:2], seen + new + SPARE, old.shape[3]) for old in (self.keys, self.values)]
            for wide, old in zip(room, (self.keys, self.values), strict=True):
                wide[..., :seen, :] = old
        for wide, states in zip(room, (key_states, value_states), strict=True):
            wide[..., seen : seen + new, :] = states
        self._room, (self.keys, self.values) = room, (wide[..., : seen + new, :] for wide in room)
        return self.keys, self.values

    def apart(self) -> RoomyLayer:
        """The same keys and values, to grow on their own."""
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

    The cache grows in place: `repeated` gives one to go on from and leaves this as it is.
    """

    cache: Any
    logits: torch.Tensor  # (N, V), of the last token
    tokens: torch.Tensor  # (N, L)
    mask: torch.Tensor  # (N, L), 0 = padding
    deltas: torch.Tensor | None  # (N, 1), by which Qwen-VL's three-axis positions differ from a count of tokens

    def repeated(self, times: int, rows: torch.Tensor | None = None) -> Prefill:
        """These rows (None: all) `times` each, one after the other; nothing is shared that a step would change."""
        cache = copy.copy(self.cache)
        cache.layers = [
            layer.apart() if isinstance(layer, RoomyLayer) else copy.copy(layer) for layer in self.cache.layers
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
        """Whether a layer sees a window of the last columns alone, so that padding between tokens would narrow it."""
        return any(isinstance(layer, DynamicSlidingWindowLayer) for layer in self.cache.layers)


def prefill(model: Any, inputs: Any) -> Prefill:
    """Read left-padded inputs, pictures and all, into a cache."""
    mask = inputs["attention_mask"]
    cache = DynamicCache(config=model.config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    mrope = hasattr(getattr(model, "model", None), "rope_deltas")
    # most families count positions from the padding on; Qwen-VL finds its own from mask and pictures
    positions = {} if mrope else {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    read = model(**inputs, **positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
    deltas = model.model.rope_deltas if mrope else None
    return Prefill(cache, read.logits[:, -1], inputs["input_ids"], mask, deltas)


class Step(NamedTuple):
    """A prefill that has gone on, and what the model said at each of the tokens that were kept."""

    after: Prefill
    logits: torch.Tensor  # (N, kept, V)


def advance(model: Any, before: Prefill, tokens: torch.Tensor, *, mask: torch.Tensor | None = None, keep: int) -> Step:
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
    return Step(replace(before, logits=logits[:, -1], tokens=every, mask=whole), logits)


@dataclass(frozen=True)
class Drawing:
    """How the next token is drawn, in transformers' terms; temperature 0 takes the likeliest."""

    temperature: float = 0.0
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    min_p: float | None = None
    repetition_penalty: float = 1.0
    suppress_tokens: tuple[int, ...] = ()
    min_new_tokens: int = 0

    def processors(self, start: Prefill, eos: Sequence[int]) -> LogitsProcessorList:
        """transformers' own, in the order in which `generate` applies them; `start` is the prompt's rows."""
        device, found = start.mask.device, LogitsProcessorList()
        if self.repetition_penalty != 1.0:
            padding = start.mask.int().argmax(dim=1)
            found.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty, prompt_ignore_length=padding))
        if self.min_new_tokens > 0 and eos:
            length = start.tokens.shape[1]
            found.append(MinNewTokensLengthLogitsProcessor(length, self.min_new_tokens, [*eos], device=str(device)))
        if self.suppress_tokens:
            found.append(SuppressTokensLogitsProcessor([*self.suppress_tokens], device=str(device)))
        if self.temperature not in (0.0, 1.0):
            found.append(TemperatureLogitsWarper(float(self.temperature)))
        if self.temperature and self.top_k:
            found.append(TopKLogitsWarper(self.top_k))
        if self.temperature and self.top_p < 1.0:
            found.append(TopPLogitsWarper(self.top_p))
        if self.temperature and self.min_p is not None:
            found.append(MinPLogitsWarper(self.min_p))
        return found


def drawing_of(config: GenerationConfig, model: Any) -> Drawing | None:
    """What `generate` would do under this config and the model's own; None where that is more than a `Drawing`."""
    merged = copy.deepcopy(config)
    merged.update(**model.generation_config.to_dict(), defaults_only=True)
    for name, value in merged.to_diff_dict().items():
        if name not in UNDERSTOOD and value not in (None, False) and value != IDLE.get(name):
            return None
    temperature = 1.0 if merged.temperature is None else merged.temperature
    return Drawing(
        temperature=temperature if merged.do_sample else 0.0,
        top_k=TOP_K if merged.top_k is None else merged.top_k,
        top_p=1.0 if merged.top_p is None else merged.top_p,
        min_p=merged.min_p,
        repetition_penalty=merged.repetition_penalty or 1.0,
        suppress_tokens=tuple(merged.suppress_tokens or ()),
        min_new_tokens=merged.min_new_tokens or 0,
    )


def ends_of(config: GenerationConfig) -> tuple[int, ...]:
    """The tokens that end a reply; none where the config names none."""
    eos = config.eos_token_id
    return tuple(eos) if isinstance(eos, list | tuple) else () if eos is None else (int(eos),)


def draw(
    model: Any,
    start: Prefill,
    *,
    replies: int,
    drawing: Drawing,
    max_new_tokens: int,
    eos: Sequence[int],
    source: torch.Generator | None = None,
) -> list[list[int]]:
    """`replies` token lists a row of `start`, the first row's first, each to its end token or `max_new_tokens`.

    A reply that has ended leaves the batch. `source`: the randomness, None for torch's global one. `start` stays
    as it is, so that more can be drawn from it.
    """
    now = start.repeated(replies)
    process = drawing.processors(now, eos)
    rows = torch.arange(len(now.mask), device=now.mask.device)
    ends = torch.tensor([*eos], dtype=torch.long, device=now.mask.device)
    drawn = torch.zeros(len(rows), max_new_tokens, dtype=torch.long, device=now.mask.device)
    lengths = torch.full_like(rows, max_new_tokens)
    for step in range(max_new_tokens):
        scores = process(now.tokens, now.logits.float())
        if drawing.temperature:
            chosen = torch.multinomial(torch.softmax(scores, dim=-1), 1, generator=source)
        else:
            chosen = scores.argmax(dim=-1, keepdim=True)
        drawn[rows, step] = chosen[:, 0]
        ended = torch.isin(chosen[:, 0], ends)
        if ended.any():
            lengths[rows[ended]] = step + 1
            left = (~ended).nonzero()[:, 0]
            if not len(left):
                break
            rows, chosen, now = rows[left], chosen[left], now.repeated(1, left)
            process = drawing.processors(_prompt(now, start), eos)
        if step + 1 < max_new_tokens:
            now = advance(model, now, chosen, keep=1).after
    return [row[:length] for row, length in zip(drawn.tolist(), lengths.tolist(), strict=True)]


def _prompt(now: Prefill, start: Prefill) -> Prefill:
    """The rows of `now`, their tokens and mask no further than the prompt."""
    length = start.tokens.shape[1]
    return replace(now, tokens=now.tokens[:, :length], mask=now.mask[:, :length])
