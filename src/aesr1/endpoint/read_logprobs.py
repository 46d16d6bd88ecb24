"""Expected scores from the probabilities that a server lists for the tokens of an answer. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from aesr1.contract import ANSWER_OPEN, SCORE_TEXTS
from aesr1.endpoint.client import Token

MOST_DOUBT = 0.01
"""A score that the words which are not listed could move by more than this is refused."""


class Expected(NamedTuple):
    """Mean and standard deviation of a score, 0–1."""

    score: float
    score_std: float


def expect_words(probabilities: Mapping[str, float], words: Sequence[str], values: Sequence[float]) -> Expected | str:
    """The expectation over words, renormalised over those that are listed; or why there is none.

    probabilities: those listed for the first token after the stem. words: with the space before them, which some
    servers leave out of tokens. values: of the words, 0–1. A word that is not listed is at most as probable as the
    least probable token that is, and all such words together are at most what is left of 1. Where that could move the
    score by more than MOST_DOUBT there is no score.
    """
    if not any(word in probabilities for word in words):
        words = [word.strip() for word in words]
    listed = [(probabilities[word], value) for word, value in zip(words, values, strict=True) if word in probabilities]
    found = sum(p for p, _ in listed)
    if not found > 0:
        return (
            f"the server lists none of the words; it lists {', '.join(map(repr, list(probabilities)[:5])) or 'nothing'}"
        )
    missing = len(words) - len(listed)
    unknown = min(missing * min(probabilities.values()), max(0.0, 1 - math.fsum(probabilities.values())))
    doubt = unknown / (found + unknown)
    if doubt > MOST_DOUBT:
        return f"the server lists {len(listed)} of {len(words)} words; the others could move the score by {doubt:.2f}"
    return _moments([(p / found, value, value**2) for p, value in listed])


def expect_written_score(tokens: Sequence[Token], written: float) -> Expected | None:
    """The expectation over the contract's scores at the place of the written one; None where no token begins there.

    A server lists other tokens beside the written ones alone. What would follow another token is taken as uniform over
    the scores that begin so: "0.6" beside a written "0.7…" counts as the mean of 0.60 to 0.69.
    """
    text = "".join(token.text for token in tokens)
    if ANSWER_OPEN not in text:
        return None
    start = text.index(ANSWER_OPEN) + len(ANSWER_OPEN)
    length, reached, prefix = 0, 1.0, ""
    parts: list[tuple[float, float, float]] = []  # of the mixture: weight, mean, mean of the squares
    for token in tokens:
        length += len(token.text)
        begin = length - len(token.text)
        if begin < start < length:
            return None  # the tag and the score share a token
        if begin < start:
            continue
        if prefix in SCORE_TEXTS or not any(text.startswith(prefix) for text in SCORE_TEXTS):
            break
        for other, probability in token.probabilities.items():
            ends = [float(text) for text in SCORE_TEXTS if text.startswith((prefix + other).lstrip())]
            if other.strip() and other != token.text and ends:
                squares = math.fsum(end**2 for end in ends) / len(ends)
                parts.append((reached * probability, math.fsum(ends) / len(ends), squares))
        reached *= token.probability
        prefix = (prefix + token.text).lstrip()
    parts.append((reached, written, written**2))
    return _moments(parts) if math.fsum(weight for weight, _, _ in parts) > 0 else None


def _moments(parts: Sequence[tuple[float, float, float]]) -> Expected:
    """The moments of a mixture of (weight, mean, mean of the squares)."""
    total = math.fsum(weight for weight, _, _ in parts)
    mean = math.fsum(weight * value for weight, value, _ in parts) / total
    square = math.fsum(weight * value for weight, _, value in parts) / total
    return Expected(mean, math.sqrt(max(0.0, square - mean**2)))
