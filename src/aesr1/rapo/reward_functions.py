"""From TRL's flat batch to RAPO's grid and back: reward callables, gathered across processes where asked."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from accelerate.utils import gather_object

from aesr1.contract import parse_reply
from aesr1.errors import AesError
from aesr1.rapo.rewards import Grid, absolute_reward, binary_reward, format_reward, relative_reward

Reward = Callable[..., list[float]]
GROUP_FIX = "make per_device_train_batch_size × steps_per_generation a multiple of num_generations, or use comparison_scope: global"


@dataclass(frozen=True)
class RewardSettings:
    """Which images meet, and the constants of the parts."""

    comparison_scope: str  # local: the images of one process (the paper); global: of all processes
    sigma: float
    threshold: float
    tie_target: float
    soft_preferences: bool = False  # preferences from the raters' spread
    compare_across_datasets: bool = False  # images of different data sets meet as well
    sigma_end: float | None = None  # sigma moves to it over the run in equal steps

    def sigma_at(self, done: float) -> float:
        """Sigma after a share of the run, 0–1."""
        return self.sigma if self.sigma_end is None else self.sigma + (self.sigma_end - self.sigma) * done


class ScoredReply(NamedTuple):
    """One reply as the rewards need it: which row it answers, its score (NaN = unreadable), the row's rating."""

    sample: int
    score: float
    rating: float
    domain: str
    rater_std: float  # of the row's votes, NaN where unknown


def reward_functions(parts: Sequence[str], settings: RewardSettings) -> list[Reward]:
    """TRL reward callables for `parts`, out of relative, absolute, binary and format, in that order given.

    They are synchronous and never raise for a reply's sake: a collective call that one process leaves is a hang.
    """

    def relative(completions: list[Any], **columns: Any) -> list[float]:
        local = _replies(completions, columns)
        everywhere = gather_object(local) if settings.comparison_scope == "global" else local
        groups = _groups(everywhere)
        rewards = relative_reward(
            groups.scores,
            groups.ratings,
            domains=None if settings.compare_across_datasets else groups.domains,
            tie_target=settings.tie_target,
            rater_stds=groups.rater_stds if settings.soft_preferences else None,
        )
        return list(rewards.reshape(-1)[_own_slice(len(local), len(everywhere))])

    def absolute(completions: list[Any], **columns: Any) -> list[float]:
        groups = _groups(_replies(completions, columns), width=1)
        sigma = settings.sigma_at(_done(columns.get("trainer_state")))
        return list(absolute_reward(groups.scores, groups.ratings, sigma=sigma).reshape(-1))

    def binary(completions: list[Any], **columns: Any) -> list[float]:
        groups = _groups(_replies(completions, columns), width=1)
        return list(binary_reward(groups.scores, groups.ratings, threshold=settings.threshold).reshape(-1))

    def format(completions: list[Any], **_: Any) -> list[float]:
        return list(format_reward([completion[-1]["content"] for completion in completions]))

    known: dict[str, Reward] = {"relative": relative, "absolute": absolute, "binary": binary, "format": format}
    unknown = [part for part in parts if part not in known]
    if unknown or not parts:
        raise AesError(f"unknown reward {', '.join(unknown) or '(none given)'}", fix=f"choose from {', '.join(known)}")
    first, *others = (known[part] for part in parts)
    return [_logging(first), *others]


def _done(state: Any) -> float:
    """The share of the run that lies behind, 0–1."""
    return float(state.global_step / state.max_steps) if state is not None and state.max_steps > 0 else 0.0


def _replies(completions: list[Any], columns: dict[str, Any]) -> list[ScoredReply]:
    judged = [parse_reply(completion[-1]["content"]) for completion in completions]
    rater_stds = columns.get("rater_std") or [None] * len(judged)
    rows = zip(judged, columns["sample"], columns["rating"], columns["domain"], rater_stds, strict=True)
    return [
        ScoredReply(
            sample,
            np.nan if judgement is None else judgement.score,
            rating,
            domain,
            np.nan if rater_std is None else rater_std,
        )
        for judgement, sample, rating, domain, rater_std in rows
    ]


class _Groups(NamedTuple):
    """Replies by image."""

    scores: Grid  # (N, K)
    ratings: Grid  # (N,)
    rater_stds: Grid  # (N,)
    domains: list[str]


def _groups(replies: Sequence[ScoredReply], *, width: int | None = None) -> _Groups:
    """The grid of images × replies; K is `width`, or the length of the first run of one row's replies."""
    if width is None:
        width = next((i for i, reply in enumerate(replies) if reply.sample != replies[0].sample), len(replies))
    samples = np.array([reply.sample for reply in replies])
    if len(replies) % width or (samples.reshape(-1, width) != samples[::width, None]).any():
        raise AesError(
            f"{len(replies)} replies do not fall into groups of {width}",
            fix=GROUP_FIX,
        )
    heads = replies[::width]
    return _Groups(
        np.array([reply.score for reply in replies]).reshape(-1, width),
        np.array([reply.rating for reply in heads]),
        np.array([reply.rater_std for reply in heads]),
        [reply.domain for reply in heads],
    )


def _own_slice(local: int, everywhere: int) -> slice:
    """This process's rows of a gather in rank order; every process holds as many."""
    from accelerate import PartialState

    rank = PartialState().process_index if everywhere > local else 0
    return slice(rank * local, (rank + 1) * local)


def _logging(reward: Reward) -> Reward:
    """The reward, which also gives TRL columns for its table of completions and figures for its log.

    Of several processes TRL logs the mean of the figures that each has of its own replies.
    """

    @functools.wraps(reward)
    def logging(completions: list[Any], **columns: Any) -> list[float]:
        replies = _replies(completions, columns)
        scores = np.array([reply.score for reply in replies])
        readable = scores[~np.isnan(scores)]
        if log_extra := columns.get("log_extra"):
            log_extra("score", [None if np.isnan(score) else score for score in scores])
            log_extra("rating", [reply.rating for reply in replies])
        if log_metric := columns.get("log_metric"):
            log_metric("readable", float(len(readable) / len(scores)))
            if len(readable) > 1:
                log_metric("score/mean", float(readable.mean()))
                log_metric("score/std", float(readable.std()))
        return reward(completions, **columns)

    return logging
