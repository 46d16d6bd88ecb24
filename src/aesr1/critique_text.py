"""Measures of an English critique: words, sentences, dimensions, praise or critique, leaks. Pure functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

DIMENSIONS = {
    "light and shadow": "light shadow shade contrast glow illuminat sunlit sunlight backlit highlight silhouette",
    "mood and narrative": "mood story stories narrative feeling emotion atmospher evoc evok serene calm drama tension",
    "composition": "compos fram horizon center centre third symmetr foreground background subject perspective crop "
    "angle placement clutter diagonal layout balanc",
    "colour": "colour color hue tone tonal palette saturat vivid pale tint monochrom",
    "exposure": "expos underexpos overexpos bright dark washed blown clipped",
}
"""AesCoT's five dimensions (section 3.2), with beginnings of words about them."""

_DIMENSIONS = {
    name: re.compile(rf"\b(?:{'|'.join(stems.split())})", re.IGNORECASE) for name, stems in DIMENSIONS.items()
}

_NUMBER = r"(?:one|two|three|four|five|six|seven|eight|nine|ten)"
_LEAKS = re.compile(
    rf"\d|\bper ?cent\b|\b{_NUMBER} out of (?:ten|five|a hundred)\b(?! \w)"
    rf"|\b{_NUMBER}[- ]stars?\b(?=[.,;:!?]|$| (?:rating|at best|at most|picture|photo))"
    r"|\b(?:score[sd]?|scoring|ratings?|rated|ground truth|mean opinion|top marks)\b"
    r"|\b(?:high|low|top|failing|passing|middling) grades?\b"
    r"|\b(?:many|few|full|bonus|loses?|lost|earns?|gains?|deduct\w*) points?\b"
    r"|\b(?:hidden|given|provided|target|true|known|assigned) (?:value|number|verdict|mark|judg\w*|assessment)\b"
    r"|\bas (?:given|provided|told|stated|instructed)\b|\b(?:i|we) (?:was|were|am|are|have been) (?:told|given|asked)\b"
    r"|\b(?:justif\w+|consistent with|in line with|to match|corresponds? to) (?:the|its|such a|this|a)"
    r" (?:\w+ )?(?:judg\w+|assessment|evaluation|verdict)\b",
    re.IGNORECASE,
)
"""A numeral, or words that argue backwards from a score."""
_DECADES = re.compile(r"\b(?:1[89]|20)\d0s\b")

LEXICON = {
    "praise": "appealing attractive balanced beautiful beautifully charming clean clear crisp decent delicate "
    "delightful depth draws dramatic dynamic effective elegant engaging evocative excellent fine gentle good graceful "
    "great harmonious harmony impressive interesting inviting lovely magnificent masterful merits nice outstanding "
    "perfect pleasant pleasing powerful pretty rich sharp skilful skillful splendid striking strong stunning "
    "successful superb vibrant vivid well wonderful",
    "faults": "amateurish argue awkward bad badly bland blown blur blurred blurry boring burn buried busy chaotic "
    "clash clashing clutter cluttered compete competes crooked disappointing disappoints distract distracting "
    "distracts dull empty fails faults fight flat flaw flawed flaws grain grainy haphazard harsh lack lacking lacks "
    "leans lifeless lost mediocre messy missing monotonous muddy noise noisy ordinary overexposed pale poor poorly "
    "slips stray tilted tilts ugly unappealing unbalanced underexposed uneasily unflattering uninspiring "
    "uninteresting unpleasant washed weak weakness wrong",
    "negations": "free hardly isn't doesn't lack lacking lacks neither never no none nor not nothing without",
}
PRAISE, FAULTS, NEGATIONS = (frozenset(listed.split()) for listed in LEXICON.values())

_FUNCTION_WORDS = (
    "a an the and or but of in on at to from with without by for as is are was were be been being it its this that "
    "these those there here their his her which who whose while where when not no than then so such more most less "
    "into over under across through between within against toward towards yet also very too just only both each"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""The most common English words."""


def words(text: str) -> list[str]:
    """Lower-case words, apostrophes kept, numerals and punctuation dropped."""
    return re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text.lower().replace("’", "'"))


def sentences(text: str) -> list[str]:
    """Sentences in lower case, with normal white space and without closing marks."""
    pieces = re.split(r"(?<=[.!?])\s+|\n+", text.lower())
    return [sentence for piece in pieces if (sentence := " ".join(piece.split()).rstrip(".!? "))]


def dimensions_of(text: str) -> list[str]:
    """Which of DIMENSIONS a text is about, by the beginnings of words."""
    return [name for name, pattern in _DIMENSIONS.items() if pattern.search(text)]


def find_leak(text: str) -> str | None:
    """The first numeral or phrase about a rating, a score or an instruction; None where there is none."""
    found = _LEAKS.search(_DECADES.sub("then", text))
    return found.group() if found else None


def stance_of(sentence: str) -> int:
    """1 praise, −1 critique, 0 neither: more words of PRAISE than of FAULTS, fewer, or the same number.

    A negation up to three words before a word reverses it ("not quite sharp", "nothing distracts").
    """
    listed = words(sentence)
    total = 0
    for place, word in enumerate(listed):
        side = (word in PRAISE) - (word in FAULTS)
        total += -side if NEGATIONS.intersection(listed[max(0, place - 3) : place]) else side
    return (total > 0) - (total < 0)


def english_share(text: str) -> float:
    """Share of English function words: about .4 in English prose, near 0 in other languages."""
    listed = words(text)
    return sum(word in FUNCTION_WORDS for word in listed) / len(listed) if listed else 0.0


def common_sentences(texts: Sequence[str], *, common: float) -> frozenset[str]:
    """Sentences that are in more than this share of the texts, and in at least two."""
    texts_with = Counter(sentence for text in texts for sentence in set(sentences(text)))
    least = max(1.0, common * len(texts))
    return frozenset(sentence for sentence, count in texts_with.items() if count > least)
