"""The table of rewards, their settings, and the reward functions that TRL calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from accelerate.utils import gather_object

from aesr1.contract import parse_reply
from aesr1.errors import AesError
from aesr1.rapo.rewards import Grid, absolute_reward, binary_reward, format_reward, relative_reward
from aesr1.training.checks import check_settings

LOCAL, GLOBAL = "local", "global"
GROUP_FIX = (
    "make per_device_train_batch_size × steps_per_generation a multiple of num_generations, or use "
    "comparison_scope: global"
)

TrlReward = Callable[..., list[float]]


class ScoredReply(NamedTuple):
    """One reply as the rewards need it."""

    row: int  # of the training set
    score: float  # 0–1, NaN = unreadable
    rating: float  # 0–1
    domain: str  # data set
    rater_std: float  # NaN = unknown


class ReplyGroups(NamedTuple):
    """Replies by image: N images × K replies."""

    scores: Grid  # (N, K), NaN = unreadable
    ratings: Grid  # (N,)
    rater_stds: Grid  # (N,), NaN = unknown
    domains: list[str]
    progress: float  # share of the run that is done, 0–1


Reward = Callable[[ReplyGroups, "RewardSettings"], Grid]

REWARDS: dict[str, Reward] = {
    "relative": lambda groups, settings: relative_reward(
        groups.scores,
        groups.ratings,
        domains=None if settings.compare_across_datasets else groups.domains,
        tie_target=settings.tie_target,
        rater_stds=groups.rater_stds if settings.soft_preferences else None,
    ),
    "absolute": lambda groups, settings: absolute_reward(
        groups.scores, groups.ratings, sigma=settings.sigma_at(groups.progress)
    ),
    "binary": lambda groups, settings: binary_reward(groups.scores, groups.ratings, threshold=settings.threshold),
    "format": lambda groups, settings: format_reward(groups.scores),
}
"""Every reward by its name in a recipe. A new reward is a function in `rapo.rewards` and an entry here."""
COMPARING = {"relative"}
"""Rewards that compare images: under comparison_scope global they see the images of all processes."""
ONLY_WITH = {
    "soft_preferences": "relative",
    "compare_across_datasets": "relative",
    "group_by_dataset": "relative",
    "sigma_end": "absolute",
}
"""Settings that change one reward only."""


@dataclass(frozen=True)
class RewardSettings:
    """Which rewards a reply gets, which images are compared, and the constants."""

    _argument_group_name = "settings of the rewards"

    rewards: list[str] = field(
        default_factory=lambda: ["relative", "absolute", "format"],
        metadata={"help": f"One or more of {', '.join(REWARDS)}."},
    )
    comparison_scope: str = field(
        default=LOCAL,
        metadata={"help": "Which images the ranking compares: local, those of one process; global, those of all."},
    )
    images_per_comparison: int = field(
        default=0,
        metadata={"help": "Images of one process that are compared at a time; sets steps_per_generation. 0: not set."},
    )
    compare_across_datasets: bool = field(
        default=False, metadata={"help": "Also compare images of different data sets."}
    )
    group_by_dataset: bool = field(
        default=False,
        metadata={
            "help": "The images that are compared at a time are of one data set. An epoch leaves out the rest of each."
        },
    )
    sigma: float = field(default=0.1, metadata={"help": "Width of the absolute reward, on the 0–1 scale."})
    sigma_end: float | None = field(
        default=None, metadata={"help": "Sigma moves to this value over the run, in equal steps."}
    )
    threshold: float = field(
        default=0.1, metadata={"help": "Errors below this earn the binary reward, on the 0–1 scale."}
    )
    tie_target: float = field(
        default=1.0, metadata={"help": "Target of the ranking for equal ratings: 1 as in the paper; 0.5, neither wins."}
    )
    soft_preferences: bool = field(
        default=False,
        metadata={"help": "Targets of the ranking from the standard deviation of the ratings (rater_std), not 0 or 1."},
    )

    def __post_init__(self) -> None:
        check_settings(self)
        unknown = [name for name in self.rewards if name not in REWARDS]
        if unknown or not self.rewards:
            raise AesError(
                f"unknown reward {', '.join(unknown) or '(none given)'}", fix=f"choose from {', '.join(REWARDS)}"
            )
        if self.comparison_scope not in (LOCAL, GLOBAL):
            raise AesError(
                f"comparison_scope is {self.comparison_scope!r}",
                fix="choose local (the images of one process) or global (of all processes)",
            )
        for name in ("sigma", "sigma_end", "threshold"):
            width = getattr(self, name)
            if width is not None and not width > 0:
                raise AesError(f"{name} is {width}", fix="give a width above 0 on the 0–1 scale")
        if self.group_by_dataset and self.compare_across_datasets:
            raise AesError(
                "group_by_dataset and compare_across_datasets contradict each other",
                fix="choose one: images meet those of their own data set, or those of any",
            )
        if not 0 <= self.tie_target <= 1:
            raise AesError(f"tie_target is {self.tie_target}", fix="give 1 (the paper's) or 0.5")
        for name, reward in ONLY_WITH.items():
            if getattr(self, name) and reward not in self.rewards:
                raise AesError(
                    f"{name} is set, but it only changes the {reward} reward, which is not among the rewards",
                    fix=f"add {reward} to rewards, or leave {name} out",
                )

    def sigma_at(self, progress: float) -> float:
        """Sigma after this share of the run, 0–1."""
        return self.sigma if self.sigma_end is None else self.sigma + (self.sigma_end - self.sigma) * progress


def reward_functions(settings: RewardSettings) -> list[TrlReward]:
    """One TRL reward function for each of `settings.rewards`, in that order. The first one also logs.

    They are synchronous and raise nothing because of a reply: if one process left a collective call, the others
    would hang.
    """
    first, *others = (_trl_reward(name, settings) for name in settings.rewards)
    return [_with_logging(first), *others]


def _trl_reward(name: str, settings: RewardSettings) -> TrlReward:
    """The reward as TRL calls it: completions and columns of one process → a number for each completion."""

    def reward(completions: list[Any], **columns: Any) -> list[float]:
        own = _scored_replies(completions, columns)
        compares = name in COMPARING
        replies = gather_object(own) if compares and settings.comparison_scope == GLOBAL else own
        groups = _groups(replies, None if compares else 1, progress=_progress(columns.get("trainer_state")))
        return list(REWARDS[name](groups, settings).reshape(-1)[_own_slice(len(own), len(replies))])

    reward.__name__ = name  # TRL logs it as rewards/<name>
    return reward


def _progress(state: Any) -> float:
    return float(state.global_step / state.max_steps) if state is not None and state.max_steps > 0 else 0.0


def _scored_replies(completions: list[Any], columns: dict[str, Any]) -> list[ScoredReply]:
    judgements = [parse_reply(completion[-1]["content"]) for completion in completions]
    rater_stds = columns.get("rater_std") or [None] * len(judgements)
    rows = zip(judgements, columns["sample"], columns["rating"], columns["domain"], rater_stds, strict=True)
    return [
        ScoredReply(
            row,
            np.nan if judgement is None else judgement.score,
            rating,
            domain,
            np.nan if rater_std is None else rater_std,
        )
        for judgement, row, rating, domain, rater_std in rows
    ]


def _groups(replies: Sequence[ScoredReply], size: int | None, *, progress: float) -> ReplyGroups:
    """The grid of images × replies. K is `size`, or the number of replies to the first image."""
    if size is None:
        size = next((i for i, reply in enumerate(replies) if reply.row != replies[0].row), len(replies))
    rows = np.array([reply.row for reply in replies])
    if len(replies) % size or (rows.reshape(-1, size) != rows[::size, None]).any():
        raise AesError(f"{len(replies)} replies do not form groups of {size}", fix=GROUP_FIX)
    firsts = replies[::size]
    return ReplyGroups(
        np.array([reply.score for reply in replies]).reshape(-1, size),
        np.array([reply.rating for reply in firsts]),
        np.array([reply.rater_std for reply in firsts]),
        [reply.domain for reply in firsts],
        progress,
    )


def _own_slice(own: int, gathered: int) -> slice:
    """The rows of this process among those gathered in rank order; every process holds the same number."""
    from accelerate import PartialState

    rank = PartialState().process_index if gathered > own else 0
    return slice(rank * own, (rank + 1) * own)


def _with_logging(reward: TrlReward) -> TrlReward:
    """The reward, which also hands TRL columns for its table of completions and figures for its log.

    With several processes TRL logs the mean of the figures of each.
    """

    @functools.wraps(reward)
    def logging(completions: list[Any], **columns: Any) -> list[float]:
        replies = _scored_replies(completions, columns)
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
