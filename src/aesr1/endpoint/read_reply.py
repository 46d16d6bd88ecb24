"""Reads a score from a reply by a profile. Strict: nothing is repaired or guessed. Pure functions."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import NamedTuple

from aesr1.contract import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN
from aesr1.endpoint.profile import Profile
from aesr1.records import Prediction

NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
FENCE = re.compile(r"```(?:json)?\s*(?P<inner>.*?)\s*```", re.DOTALL)


class ReadReply(NamedTuple):
    """What a reply says."""

    score: float | None  # 0–1; None where no number could be read, or one outside the scale
    reasoning: str | None
    out_of_range: str | None = None  # says which number is outside the scale


def read_reply(profile: Profile, reply: str) -> ReadReply:
    """The score and the text before the answer, by the profile's reading: answer, json_rating or number.

    The reply must hold one pair of answer tags and in it one plain number, or for json_rating one JSON object, also in
    a code fence, with a number as `rating`. For `number` the whole reply must be one.
    """
    if profile.reading == "number":
        value, reasoning = _number(reply), None
    else:
        answer = _answer(reply)
        value = None if answer is None else _rating(answer) if profile.reading == "json_rating" else _number(answer)
        head = reply.partition(ANSWER_OPEN)[0].replace(THINK_OPEN, "").replace(THINK_CLOSE, "")
        reasoning = head.strip() or None
    if value is None:
        return ReadReply(None, None)
    low, high = profile.scale
    if not low <= value <= high:
        return ReadReply(None, None, f"{value:g} is outside the scale {low:g} to {high:g}")
    return ReadReply(profile.normalised(value), reasoning)


def _answer(reply: str) -> str | None:
    """The text in the one pair of answer tags."""
    if reply.count(ANSWER_OPEN) != 1 or reply.count(ANSWER_CLOSE) != 1:
        return None
    before, _, after = reply.partition(ANSWER_OPEN)
    return None if ANSWER_CLOSE in before else after.partition(ANSWER_CLOSE)[0]


def _number(text: str) -> float | None:
    return float(text) if NUMBER.fullmatch(text.strip()) else None


def _rating(answer: str) -> float | None:
    fenced = FENCE.fullmatch(answer.strip())
    try:
        value = json.loads(fenced["inner"] if fenced else answer)
        rating = value.get("rating") if isinstance(value, dict) else None
        return float(rating) if isinstance(rating, int | float) and not isinstance(rating, bool) else None
    except (ValueError, RecursionError, OverflowError):
        return None


def row_of_reply(empty: Prediction, profile: Profile, reply: str) -> Prediction:
    """The row of a reply that is read by the profile."""
    read = read_reply(profile, reply)
    return replace(
        empty,
        score=read.score,
        readable=read.score is not None,
        reasoning=read.reasoning,
        reply=reply,
        error=read.out_of_range,
    )
