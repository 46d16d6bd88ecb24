"""AesCoT's three filters: a rationale stays only if none gives a reason against it. Pure functions of the text."""

from __future__ import annotations

import re

from aesr1.aescot.phrases import Findings
from aesr1.contract import LEVELS, level_of

_LEAK = re.compile(
    r"\d|\bpercent\b|\bout of (?:ten|five|a hundred)\b"
    r"|\b(?:score[sd]?|rating|rated|grade[sd]?|mark of|points?)\b"
    r"|\b(?:hidden|given|provided|target|true) (?:score|rating|value|judg)"
    r"|\b(?:i was|as) (?:told|given|instructed|provided)\b|\bground truth\b|\bmean opinion\b",
    re.IGNORECASE,
)

_VERDICTS = {
    "bad": r"poor|weak|fails?|disappoint\w*|hardly anything|faults outweigh|unsuccessful|ugly|terrible|bad",
    "fair": r"ordinary|average|balance|pleasing|decent|merits outweigh|mediocre|acceptable|passable|moderate",
    "good": r"fine|lovely|merits carry|outstanding|beautiful|everything holds|excellent|stunning|superb|masterful",
}
_VERDICT = {level: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for level, words in _VERDICTS.items()}

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


def leak(text: str) -> str | None:
    """The critique names a number or betrays that it was told the score."""
    found = _LEAK.search(text)
    return f"leak: says {found.group()!r}" if found else None


def align(text: str, score: float) -> str | None:
    """The last sentence's verdict is of another level than the human score (0–1), or there is no verdict."""
    last = re.split(r"(?<=[.!?])\s+", text.strip())[-1]
    said = [level for level in LEVELS if _VERDICT[level].search(last)]
    wanted = level_of(score)
    if not said:
        return "align: ends without a verdict"
    return None if wanted in said else f"align: the verdict is {said[0]}, people said {wanted}"


def fact(text: str, findings: Findings) -> str | None:
    """A claim about something measurable lies two steps or more from what was measured.

    One step is borderline, where a person and a measurement may differ. For exposure, where 0 is in the middle,
    the wrong side is also a contradiction.
    """
    for pattern, name, steps in _CLAIM:
        found = pattern.search(text)
        if not found:
            continue
        measured = int(getattr(findings, name))
        distance = min(abs(measured - step) for step in steps)
        if distance >= 2 or (name == "exposure" and measured * sum(steps) < 0):
            return f"fact: says {found.group().lower()!r}, but {name} measures {measured} (claimed {sorted(steps)})"
    return None


def refuse(text: str, *, score: float, findings: Findings) -> str | None:
    """The first reason against a critique, in the order leak, align, fact; None where it may stay."""
    return leak(text) or align(text, score) or fact(text, findings)
