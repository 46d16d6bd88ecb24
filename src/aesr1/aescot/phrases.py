"""The sentences of the embedded critic about drawn scenes: picture facts → English prose. Pure functions.

The caller decides where the facts come from (a measured photograph, a known scene) and which score they must fit.
"""

from __future__ import annotations

import numpy as np

from aesr1.contract import level_of
from aesr1.facts.measured_facts import PictureFacts

PLACE = {
    "left": ("the subject stands left of centre", "the eye rests on the left third", "the weight lies to the left"),
    "middle": ("the subject sits in the middle", "the eye lands dead centre", "the weight lies in the centre"),
    "right": ("the subject stands right of centre", "the eye rests on the right third", "the weight lies to the right"),
    "edge": ("the subject is pushed to the edge", "the eye slips off the side", "the weight hangs at the border"),
}
TILT = (
    ("the horizon is level", "the frame is straight"),
    ("the horizon leans a little", "the frame tilts slightly"),
    ("the horizon leans badly", "the frame is crooked"),
)
CLUTTER = (
    ("nothing distracts", "the space stays calm"),
    ("a few stray things distract", "some clutter disturbs"),
    ("many stray things compete", "clutter fills the frame"),
)
EXPOSURE = {
    -2: ("It is badly underexposed, the darks drown", "Far too dark, everything sinks into black"),
    -1: ("It is slightly underexposed", "The exposure is a little dark"),
    0: ("The exposure is right", "Well exposed from dark to bright"),
    1: ("It is slightly overexposed", "The exposure is a little bright"),
    2: ("It is badly overexposed, the highlights burn out", "Far too bright, everything washes into white"),
}
CONTRAST = (
    ("The light is flat and the shadows are empty", "Flat light leaves the shapes without depth"),
    ("Light and shadow are soft", "The light is gentle, the contrast moderate"),
    ("Light and shadow model the shapes", "Clear light gives the scene depth"),
)
SATURATION = (("Pale", "Washed"), ("Natural", "Balanced"), ("Vivid", "Strong"))
CLASH = (
    ("colours agree", "tones belong together"),
    ("colours sit uneasily together", "tones argue a little"),
    ("colours clash", "tones fight each other"),
)
FOCUS = (
    ("details are crisp", "the focus is sharp"),
    ("details are soft", "the focus is not quite sharp"),
    ("details are blurred", "the focus is lost"),
)
GRAIN = (("clean", "free of grain"), ("a little grainy", "with some grain"), ("buried in grain", "full of noise"))
MOOD = {
    "bad": (
        "The {warmth} mood stays empty",
        "No story comes out of the {warmth} tones",
        "The {warmth} scene says little",
    ),
    "fair": (
        "The {warmth} mood is pleasant",
        "The {warmth} tones hint at a story",
        "A {warmth} scene with some feeling",
    ),
    "good": ("The {warmth} mood draws us in", "The {warmth} tones tell a story", "A {warmth} scene full of feeling"),
}
VERDICT = (
    (0.2, ("Altogether a poor picture", "As a whole it fails", "Hardly anything holds it together")),
    (0.4, ("Altogether a weak picture", "As a whole it disappoints", "The faults outweigh the rest")),
    (0.55, ("Altogether an ordinary picture", "As a whole it is average", "Faults and merits balance")),
    (0.7, ("Altogether a pleasing picture", "As a whole it is decent", "The merits outweigh the faults")),
    (0.85, ("Altogether a fine picture", "As a whole it is lovely", "The merits carry it well")),
    (1.01, ("Altogether an outstanding picture", "As a whole it is beautiful", "Everything holds together")),
)


def write_description(findings: PictureFacts, rng: np.random.Generator) -> list[str]:
    """Four sentences about light, exposure, colour and composition, in random order, without a verdict."""

    def pick(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    composition = [pick(PLACE[findings.place]), pick(TILT[findings.tilt]), pick(CLUTTER[findings.clutter])]
    detail = f"{pick(FOCUS[findings.focus])} and {pick(GRAIN[findings.grain])}"
    sentences = [
        pick(CONTRAST[findings.contrast]),
        f"{pick(EXPOSURE[findings.exposure])}, {detail}",
        f"{pick(SATURATION[findings.saturation])} {pick(CLASH[findings.clash])}",
        f"{composition[0].capitalize()}, {composition[1]}, {composition[2]}",
    ]
    return [sentences[i] + "." for i in rng.permutation(len(sentences))]


def write_critique(findings: PictureFacts, score: float, rng: np.random.Generator) -> str:
    """A critique whose tone and verdict fit a score in [0, 1]. It never names the score."""
    moods = MOOD[level_of(score)]
    mood = moods[int(rng.integers(len(moods)))].format(warmth=findings.warmth)
    sentences = write_description(findings, rng)
    sentences.insert(int(rng.integers(len(sentences) + 1)), mood + ".")
    return " ".join([*sentences, verdict_of(score, rng) + "."])


def verdict_of(score: float, rng: np.random.Generator) -> str:
    """The words of a verdict that fits a score in [0, 1]."""
    verdicts = next(texts for bound, texts in VERDICT if score < bound)
    return verdicts[int(rng.integers(len(verdicts)))]
