"""AesCoT's filters: one table of checks. A rationale stays if none gives a reason against it. Pure functions.

Leak, align and fact are the paper's (section 3.2). Language, length, dimensions, near-duplicates and templates keep
the set of texts useful for training. The judges' answers are read here too, so that a threshold can be changed later.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from aesr1.aescot.settings import EMBEDDED, FilterSettings
from aesr1.contract import LEVELS, TAGS, level_of
from aesr1.critique_text import (
    common_sentences,
    dimensions_of,
    english_share,
    find_leak,
    sentences,
    stance_of,
    words,
)
from aesr1.facts.claims import claims_of
from aesr1.facts.measured_facts import PictureFacts

PAPER_FILTERS = ("leak", "align", "fact")
ANSWERS = {
    "filtered": "the service's content filter",
    "refused": "the teacher refused",
    "rejected": "the service rejects the request",
    "unreachable": "no answer came",
}
"""Reasons that come from the teacher's service, and what they mean."""
FINAL = ("filtered", "refused")
"""Reasons that another attempt would not change."""
NOT_ASKED = ("unreachable", "rejected")
"""Rows with these reasons do not count: the next run asks about the picture again."""


_VERDICTS = {
    "bad": r"poor|weak|fails?|disappoint\w*|hardly anything|faults outweigh|unsuccessful|ugly|terrible|bad",
    "fair": r"ordinary|pleasing|decent|merits outweigh|mediocre|acceptable|passable|moderate|"
    r"average (?:picture|photograph|image)|(?:faults|merits|strengths|weaknesses|flaws)[^.]{0,40} balance",
    "good": r"fine (?:picture|photograph|image|one)|lovely|merits carry|outstanding|beautiful|everything holds|"
    r"excellent|stunning|superb|masterful",
}
_VERDICT = {level: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for level, words in _VERDICTS.items()}


def leak(text: str) -> str | None:
    """The critique names a number or shows that its writer knew the score."""
    passage = find_leak(text)
    return f"leak: says {passage!r}" if passage else None


def align(text: str, score: float) -> str | None:
    """The verdict in the last sentence is of another level than the human score (0–1).

    A last sentence without a verdict word must not praise a bad picture or blame a good one, if the whole text does.
    """
    last = re.split(r"(?<=[.!?])\s+", text.strip())[-1]
    wanted = level_of(score)
    levels = [level for level in LEVELS if _VERDICT[level].search(last)]
    if levels:
        return None if wanted in levels else f"align: the verdict is {levels[0]}, people said {wanted}"
    side, whole = stance_of(last), sum(stance_of(sentence) for sentence in sentences(text))
    if side and side * whole > 0 and wanted == (LEVELS[0] if side > 0 else LEVELS[-1]):
        return f"align: ends with {'praise' if side > 0 else 'blame'}, people said {wanted}"
    return None


def fact(text: str, findings: PictureFacts) -> str | None:
    """A claim contradicts the measurement."""
    for claim in claims_of(text):
        if claim.contradicts(findings):
            measured = getattr(findings, claim.name)
            return f"fact: says {claim.words!r}, but {claim.name} measures {measured} (claimed {sorted(claim.steps)})"
    return None


def language(text: str, settings: FilterSettings) -> str | None:
    """Not English prose."""
    share = english_share(text)
    return None if share >= settings.english else f"language: {share:.0%} of its words are English function words"


def form(text: str) -> str | None:
    """An empty text, or one that cannot be part of a reply."""
    if not text.strip():
        return "form: no text"
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return "form: holds half a character"
    tag = next((tag for tag in TAGS if tag in text), None)
    return f"form: holds the tag {tag[1:-1]}" if tag else None


def cut_off(finish: str | None) -> str | None:
    """Cut off by the token limit."""
    return "length: the answer was cut off" if finish == "length" else None


def length(text: str, settings: FilterSettings) -> str | None:
    """Too short or too long."""
    count = len(words(text))
    if count < settings.shortest:
        return f"length: {count} words, fewer than {settings.shortest}"
    return f"length: {count} words, more than {settings.longest}" if count > settings.longest else None


def dimensions(text: str, settings: FilterSettings) -> str | None:
    """Speaks of too few of AesCoT's five dimensions."""
    named = dimensions_of(text)
    if len(named) >= settings.dimensions:
        return None
    return f"dimensions: speaks of {', '.join(named) or 'none'} alone"


def judged(answers: Mapping[str, str], score: float, settings: FilterSettings) -> str | None:
    """The answers of judges: leak and fact answer "none" or quote a passage; align is a blind score of 0 to 100."""
    for name in ("leak", "fact"):
        answer = answers.get(name, "none").strip()
        if not re.match(r"\W*none\b", answer, re.IGNORECASE):
            return f"{name}: the judge says {answer[:120]!r}"
    if "align" in answers:
        number = re.search(r"\d+(?:\.\d+)?", re.sub(r"(?i)(?:out of|/)\s*100\b", "", answers["align"]))
        if not number:
            return f"align: the judge says {answers['align'][:60]!r}, not a number"
        blind = float(number.group()) / 100
        if abs(blind - score) > settings.tolerance:
            return f"align: read blind it sounds like {blind:.2f}, people said {score:.2f}"
    return None


class Critique(NamedTuple):
    """A critique and all that the filters look at."""

    text: str
    score: float  # human, 0–1
    facts: PictureFacts
    finish: str | None = None  # "length": the text was cut off
    judged: Mapping[str, str] = {}  # answers of judges, by filter


class Filter(NamedTuple):
    """A check of one critique by itself: a reason against it, or None."""

    name: str  # what its reasons begin with
    meaning: str  # for people
    check: Callable[[Critique, FilterSettings], str | None]


FILTERS = (
    Filter("form", "empty, or cannot be part of a reply", lambda critique, _: form(critique.text)),
    Filter("length", "too short, too long or cut off", lambda critique, _: cut_off(critique.finish)),
    Filter("leak", "names a number or the score", lambda critique, _: leak(critique.text)),
    Filter("align", "its verdict is not the human one", lambda critique, _: align(critique.text, critique.score)),
    Filter("fact", "contradicts what was measured", lambda critique, _: fact(critique.text, critique.facts)),
    Filter("language", "is not English prose", lambda critique, settings: language(critique.text, settings)),
    Filter("length", "too short, too long or cut off", lambda critique, settings: length(critique.text, settings)),
    Filter(
        "dimensions", "speaks of too few dimensions", lambda critique, settings: dimensions(critique.text, settings)
    ),
    Filter(
        "fact",
        "contradicts what was measured",
        lambda critique, settings: judged(critique.judged, critique.score, settings),
    ),
)
"""The filters in the order in which they are applied. A new filter is a function and an entry here.

The last one reads the answers of judges; its reasons begin with leak, align or fact.
"""
AMONG = {"near": "too similar to an earlier text", "template": "too many common sentences"}
"""Filters that compare a text with the others, and what they mean (`refusals_among`)."""

MEANINGS = {entry.name: entry.meaning for entry in FILTERS} | AMONG | ANSWERS
"""What a reason begins with, and what it means for people."""
REASONS = (*PAPER_FILTERS, *(name for name in MEANINGS if name not in PAPER_FILTERS))


def refusal_of(critique: Critique, settings: FilterSettings = EMBEDDED) -> str | None:
    """The first reason against a critique by itself; None where it may stay."""
    return next((reason for entry in FILTERS if (reason := entry.check(critique, settings))), None)


def refusals_among(texts: Sequence[str], settings: FilterSettings) -> list[str | None]:
    """A reason for each text that is too similar to an earlier kept one, or has too many common sentences.

    Similarity is the share of the shorter text's word triples that the other text has too.
    """
    owners: dict[tuple[str, ...], list[int]] = {}
    triples_of: list[frozenset[tuple[str, ...]]] = []
    reasons: list[str | None] = []
    for position, text in enumerate(texts):
        listed = words(text)
        triples = frozenset(zip(listed, listed[1:], listed[2:], strict=False))
        triples_of.append(triples)
        reasons.append(_near(triples, owners, triples_of, settings))
        if reasons[-1] is None and settings.near < 1:
            for triple in triples:
                owners.setdefault(triple, []).append(position)
    if settings.template < 1:
        distinct = [text for text, reason in zip(texts, reasons, strict=True) if reason is None]
        templates = common_sentences(distinct, common=settings.common)
        reasons = [reason or _template(text, templates, settings) for text, reason in zip(texts, reasons, strict=True)]
    return reasons


def _near(
    triples: frozenset[tuple[str, ...]],
    owners: Mapping[tuple[str, ...], list[int]],
    triples_of: Sequence[frozenset[tuple[str, ...]]],
    settings: FilterSettings,
) -> str | None:
    shared: dict[int, int] = {}
    for triple in triples:
        for owner in owners.get(triple, ()):
            shared[owner] = shared.get(owner, 0) + 1
    for owner, count in shared.items():
        share = count / max(1, min(len(triples), len(triples_of[owner])))
        if share > settings.near:
            return f"near: {share:.0%} of its word triples stand in an earlier text"
    return None


def _template(text: str, templates: frozenset[str], settings: FilterSettings) -> str | None:
    listed = sentences(text)
    share = sum(sentence in templates for sentence in listed) / max(1, len(listed))
    return f"template: {share:.0%} of its sentences are common ones" if share > settings.template else None
