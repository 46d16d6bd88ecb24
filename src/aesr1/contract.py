"""The contract between a model and all other code: prompt, score scale, tags, reply grammar, pixel cap, version.

No other module has the tags. A checkpoint records `VERSION`; one with another version is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aesr1.errors import AesError

VERSION = "1"
"""Raised when a model trained with the old text would misread the new one."""

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)

PROMPT_SENTENCES = (
    "You are an aesthetic expert.",
    "What is your overall rating of the aesthetics of this picture?",
    "The rating is a float between 0 (ugly) and 1 (beautiful), rounded to two decimal places.",
    f"First write all your reasoning inside one pair of {THINK_OPEN} {THINK_CLOSE} tags.",
    f"Then write only the rating inside one pair of {ANSWER_OPEN} {ANSWER_CLOSE} tags.",
    "Write nothing outside the tags.",
)
PROMPT = " ".join(PROMPT_SENTENCES)

MAX_PIXELS = 262_144
"""Larger pictures are shrunk to this area, in training and scoring: the paper's 512 × 512."""
MIN_PIXELS = 56 * 56
"""Smaller caps leave nothing to judge."""

SCORE_TEXTS = tuple(f"{hundredths / 100:.2f}" for hundredths in range(101))
"""Every answer with two decimals, "0.00" to "1.00": the score expectation is a sum over them."""

LEVELS = ("bad", "fair", "good")
LEVEL_BOUNDS = (0.4, 0.7)
"""bad [0, .4), fair [.4, .7), good [.7, 1] (AesCoT, section 3.2)."""

# re.ASCII: \d matches 0-9 only, not digits of other scripts
_REPLY = re.compile(
    f"{THINK_OPEN}(?P<reasoning>.*?){THINK_CLOSE}\\s*{ANSWER_OPEN}\\s*(?P<score>0|1|0\\.\\d+|1\\.0+)\\s*{ANSWER_CLOSE}",
    re.DOTALL | re.ASCII,
)


@dataclass(frozen=True)
class Judgement:
    """A parsed reply: score in [0, 1] and the text that led to it."""

    score: float
    reasoning: str


def parse_reply(text: str) -> Judgement | None:
    """Parse a whole reply, or return None: nothing is repaired or guessed.

    The reply is exactly one think pair with text in it, then one answer pair with one plain decimal
    number in [0, 1] (any number of decimals). Only white space may be between the pairs.
    """
    if any(text.count(tag) != 1 for tag in TAGS):
        return None
    match = _REPLY.fullmatch(text)
    if match is None or not match["reasoning"].strip():
        return None
    return Judgement(score=float(match["score"]), reasoning=match["reasoning"].strip())


def render_reply(judgement: Judgement) -> str:
    """Write a judgement as a reply, its score with two decimals. AesError where the reply would be unreadable."""
    text = f"{reply_until_score(judgement.reasoning)}{judgement.score:.2f}{ANSWER_CLOSE}"
    if parse_reply(text) is None:
        raise AesError(
            f"a reply with score {judgement.score} and reasoning {judgement.reasoning[:60]!r} breaks the contract",
            fix=f"give a score in [0, 1] and a reasoning that is not empty and holds none of {' '.join(TAGS)}",
        )
    return text


def reply_until_score(reasoning: str) -> str:
    """The reply up to the first character of the score."""
    return f"{THINK_OPEN}{reasoning}{THINK_CLOSE}{ANSWER_OPEN}"


def reply_prefix(text: str) -> str | None:
    """A raw reply up to the first character of its score; None where it has no answer tag."""
    head, tag, _ = text.partition(ANSWER_OPEN)
    return head + tag if tag else None


def level_of(score: float) -> str:
    """The paper's level of a score in [0, 1]: bad, fair or good."""
    return LEVELS[sum(score >= bound for bound in LEVEL_BOUNDS)]


def check_version(version: str, *, where: str) -> None:
    """Refuse a checkpoint or file of another contract version."""
    if version != VERSION:
        raise AesError(
            f"{where} was made under contract version {version}, this aesr1 has version {VERSION}",
            fix="use the aesr1 release that made it, or train it again with this one",
        )
