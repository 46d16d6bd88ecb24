"""Samples replies from a filled cache as transformers' `generate` would."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import (
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

from aesr1.model.kv_cache import Prefill, extend

SUPPORTED = frozenset(
    {
        *("do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "suppress_tokens"),
        *("min_new_tokens", "max_new_tokens", "max_length", "eos_token_id", "bos_token_id", "pad_token_id"),
        *("use_cache", "disable_compile", "transformers_version", "_from_model_config"),
    }
)
"""The settings of a generation config that `sampling_settings` supports; with any other one `generate` is used."""
NEUTRAL_VALUES = {
    **dict.fromkeys(("num_beams", "num_return_sequences", "typical_p", "length_penalty", "guidance_scale"), 1),
    **dict.fromkeys(("min_length", "no_repeat_ngram_size", "epsilon_cutoff", "eta_cutoff"), 0),
}
"""Other settings, with the values that have no effect."""
TOP_K = 50
"""transformers' default when a sampling config names none."""


@dataclass(frozen=True)
class SamplingSettings:
    """How the next token is sampled, in transformers' terms; temperature 0 is greedy."""

    temperature: float = 0.0
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    min_p: float | None = None
    repetition_penalty: float = 1.0
    suppress_tokens: tuple[int, ...] = ()
    min_new_tokens: int = 0

    def processors(self, start: Prefill, eos: Sequence[int]) -> LogitsProcessorList:
        """transformers' processors, in the order of `generate`; `start` is the prompt's rows."""
        device, processors = start.mask.device, LogitsProcessorList()
        if self.repetition_penalty != 1.0:
            padding = start.mask.int().argmax(dim=1)
            processors.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty, prompt_ignore_length=padding))
        if self.min_new_tokens > 0 and eos:
            length = start.tokens.shape[1]
            processors.append(
                MinNewTokensLengthLogitsProcessor(length, self.min_new_tokens, [*eos], device=str(device))
            )
        if self.suppress_tokens:
            processors.append(SuppressTokensLogitsProcessor([*self.suppress_tokens], device=str(device)))
        if self.temperature not in (0.0, 1.0):
            processors.append(TemperatureLogitsWarper(float(self.temperature)))
        if self.temperature and self.top_k:
            processors.append(TopKLogitsWarper(self.top_k))
        if self.temperature and self.top_p < 1.0:
            processors.append(TopPLogitsWarper(self.top_p))
        if self.temperature and self.min_p is not None:
            processors.append(MinPLogitsWarper(self.min_p))
        return processors


def sampling_settings(config: GenerationConfig, model: Any) -> SamplingSettings | None:
    """How `generate` samples under this config and the model's own; None where `SamplingSettings` cannot express it."""
    merged = copy.deepcopy(config)
    merged.update(**model.generation_config.to_dict(), defaults_only=True)
    for name, value in merged.to_diff_dict().items():
        if name not in SUPPORTED and value not in (None, False) and value != NEUTRAL_VALUES.get(name):
            return None
    temperature = 1.0 if merged.temperature is None else merged.temperature
    return SamplingSettings(
        temperature=temperature if merged.do_sample else 0.0,
        top_k=TOP_K if merged.top_k is None else merged.top_k,
        top_p=1.0 if merged.top_p is None else merged.top_p,
        min_p=merged.min_p,
        repetition_penalty=merged.repetition_penalty or 1.0,
        suppress_tokens=tuple(merged.suppress_tokens or ()),
        min_new_tokens=merged.min_new_tokens or 0,
    )


def end_tokens(config: GenerationConfig) -> tuple[int, ...]:
    """The tokens that end a reply; none where the config names none."""
    eos = config.eos_token_id
    return tuple(eos) if isinstance(eos, list | tuple) else () if eos is None else (int(eos),)


def sample_replies(
    model: Any,
    start: Prefill,
    *,
    replies: int,
    sampling: SamplingSettings,
    max_new_tokens: int,
    eos: Sequence[int],
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """`replies` token lists for each row of `start`, in row order, each up to its end token or `max_new_tokens`.

    A finished reply leaves the batch. `generator`: the random numbers, None for torch's global one. `start` is not
    changed, so that it can be used again.
    """
    state = start.repeat(replies)
    process_logits = sampling.processors(state, eos)
    rows = torch.arange(len(state.mask), device=state.mask.device)
    end_ids = torch.tensor([*eos], dtype=torch.long, device=state.mask.device)
    sampled = torch.zeros(len(rows), max_new_tokens, dtype=torch.long, device=state.mask.device)
    lengths = torch.full_like(rows, max_new_tokens)
    for step in range(max_new_tokens):
        scores = process_logits(state.tokens, state.logits.float())
        if sampling.temperature:
            chosen = torch.multinomial(torch.softmax(scores, dim=-1), 1, generator=generator)
        else:
            chosen = scores.argmax(dim=-1, keepdim=True)
        sampled[rows, step] = chosen[:, 0]
        ended = torch.isin(chosen[:, 0], end_ids)
        if ended.any():
            lengths[rows[ended]] = step + 1
            unfinished = (~ended).nonzero()[:, 0]
            if not len(unfinished):
                break
            rows, chosen, state = rows[unfinished], chosen[unfinished], state.repeat(1, unfinished)
            process_logits = sampling.processors(_prompt_part(state, start), eos)
        if step + 1 < max_new_tokens:
            state = extend(model, state, chosen, keep=1).after
    return [row[:length] for row, length in zip(sampled.tolist(), lengths.tolist(), strict=True)]


def _prompt_part(state: Prefill, start: Prefill) -> Prefill:
    """The rows of `state`, with tokens and mask of the prompt only."""
    length = start.tokens.shape[1]
    return replace(state, tokens=state.tokens[:, :length], mask=state.mask[:, :length])
