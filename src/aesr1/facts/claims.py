"""Claims of an English critique that can be checked against measurements of its picture. Pure functions."""

from __future__ import annotations

import re
from typing import NamedTuple

from aesr1.critique_text import NEGATIONS, words
from aesr1.facts.measured_facts import PictureFacts

_CLAIMS: tuple[tuple[str, str, frozenset[int]], ...] = (
    (r"underexposed|too dark|little dark|sinks? into black|darks drown", "exposure", frozenset({-2, -1})),
    (
        r"overexposed|too bright|little bright|washe[sd]? into white|highlights burn|blown[- ]out",
        "exposure",
        frozenset({1, 2}),
    ),
    (r"exposure is right|well exposed|perfectly exposed", "exposure", frozenset({0})),
    (r"flat light|light is flat|no contrast|lacks contrast", "contrast", frozenset({0})),
    (r"strong contrast|model the shapes|clear light|high contrast", "contrast", frozenset({2})),
    (r"pale|washed colou?rs|washed tones|desaturated|colou?rless", "saturation", frozenset({0})),
    (r"vivid|oversaturated|garish|strong colou?rs|strong tones", "saturation", frozenset({2})),
    (r"colou?rs clash|tones fight", "clash", frozenset({2})),
    (r"colou?rs agree|tones belong together|colou?rs harmoni[sz]e", "clash", frozenset({0})),
    (r"crisp|focus is sharp|razor[- ]sharp|perfectly sharp", "focus", frozenset({0})),
    (r"blurred|blurry|focus is lost|out of focus", "focus", frozenset({2})),
    (r"buried in grain|full of noise|very noisy", "grain", frozenset({2})),
    (r"free of grain|and clean|noise-free", "grain", frozenset({0})),
    (r"horizon is level|frame is straight", "tilt", frozenset({0})),
    (r"leans badly|is crooked|badly tilted", "tilt", frozenset({2})),
    (r"nothing distracts|stays calm|uncluttered", "clutter", frozenset({0})),
    (r"many stray|clutter fills|cluttered frame", "clutter", frozenset({2})),
)
_CLAIM = tuple((re.compile(rf"\b(?:{words})\b", re.IGNORECASE), name, steps) for words, name, steps in _CLAIMS)


BEHIND = ("background", "backdrop", "behind", "bokeh", "foreground", "depth of field")
"""Parts of a picture that a photographer blurs on purpose."""


class Claim(NamedTuple):
    """A statement about something that is measured."""

    words: str
    name: str  # a field of PictureFacts
    steps: frozenset[int]  # any of them makes it true

    def distance(self, facts: PictureFacts) -> int:
        """Steps between the claim and the measurement; 0 where it is true."""
        return min(abs(int(getattr(facts, self.name)) - step) for step in self.steps)

    def contradicts(self, facts: PictureFacts) -> bool:
        """Whether it differs from the measurement by two steps or more.

        One step is borderline, where a person and a measurement may differ. For exposure, where 0 is in the middle,
        the wrong side is also a contradiction.
        """
        wrong_side = self.name == "exposure" and int(facts.exposure) * sum(self.steps) < 0
        return wrong_side or self.distance(facts) >= 2


def claims_of(text: str) -> list[Claim]:
    """The claims of a text, at most one for each row of the table above."""
    found = []
    for pattern, name, steps in _CLAIM:
        claim = next((match for match in pattern.finditer(text) if _claimed(match, name)), None)
        if claim:
            found.append(Claim(claim.group().lower(), name, steps))
    return found


def _claimed(match: re.Match[str], name: str) -> bool:
    """Whether the words are a claim about the picture: not negated, and not about a background blurred on purpose."""
    before = words(match.string[: match.start()])[-3:]
    if NEGATIONS.intersection(before) or any(word.startswith(("avoid", "resist")) for word in before):
        return False
    start = max(match.string.rfind(mark, 0, match.start()) for mark in ".,;") + 1
    ends = [end for mark in ".,;" if (end := match.string.find(mark, match.end())) >= 0]
    clause = match.string[start : min(ends, default=len(match.string))].lower()
    return name != "focus" or not any(word in clause for word in BEHIND)
