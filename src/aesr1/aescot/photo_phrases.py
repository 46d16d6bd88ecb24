"""The sentences of the embedded critic about photographs: picture facts → English prose. Pure functions.

More varied than those about drawn scenes, and they name what is there. Every claim that can be measured is worded so
that `filters.fact` recognises it.
"""

from __future__ import annotations

import numpy as np

from aesr1.aescot.subjects import KIND_OF
from aesr1.contract import level_of
from aesr1.facts.measured_facts import PictureFacts

PLACE = {
    "left": ("{} stands left of centre", "{} sits in the left third", "the eye goes to {} on the left"),
    "middle": ("{} sits in the middle", "{} is placed dead centre", "the eye lands on {} in the centre"),
    "right": ("{} stands right of centre", "{} sits in the right third", "the eye goes to {} on the right"),
    "edge": (
        "{} is pushed to the edge",
        "{} stands near the border of the frame",
        "the eye must look for {} at the side",
    ),
}
TILT = (
    (),
    ("the horizon leans a little", "the frame tilts slightly"),
    ("the horizon leans badly", "the frame is crooked"),
)
"""A level frame is not worth a word."""
CLUTTER = (
    ("nothing distracts", "the space around stays calm", "the frame is uncluttered"),
    ("a few things around it ask for attention", "the background is a little busy", "some clutter remains"),
    ("many stray things compete", "clutter fills the frame", "the background is busy"),
)
EXPOSURE = {
    -2: ("It is badly underexposed and the darks drown", "Far too dark, much of it sinks into black"),
    -1: ("It is slightly underexposed", "The exposure is a little dark"),
    0: ("The exposure is right", "It is well exposed from dark to bright"),
    1: ("It is slightly overexposed", "The exposure is a little bright"),
    2: ("It is badly overexposed and the highlights burn out", "Far too bright, parts are blown out"),
}
CONTRAST = (
    (
        "The light is flat and gives little depth",
        "Flat light leaves the shapes without depth",
        "The picture lacks contrast",
    ),
    ("Light and shadow are soft", "The light is gentle, the contrast mild", "Soft light falls evenly"),
    ("Light and shadow model the shapes", "Clear light gives the picture depth", "Strong contrast shapes the picture"),
)
SATURATION = (
    ("pale", "muted"),
    ("natural", "balanced"),
    ("vivid", "strong"),
)
CLASH = (
    ("{} colours that agree hold it together", "The {} tones belong together", "{} colours harmonise"),
    ("{} colours sit uneasily together", "The {} tones argue a little", "The {} palette is not quite settled"),
    ("{} colours clash", "The {} tones fight each other", "The {} palette pulls apart"),
)
FOCUS = (
    ("details are crisp", "the focus is sharp", "every texture is crisp"),
    ("details are a little soft", "the focus is not quite sharp", "fine texture is soft"),
    ("details are blurred", "the focus is lost", "much of it is blurry"),
)
GRAIN = (
    (),
    ("some grain shows", "there is a little noise"),
    ("it is buried in grain", "it is full of noise"),
)
MOOD = {
    "bad": (
        "The {warmth} mood stays empty",
        "No story comes out of it",
        "The {warmth} scene gives little to feel",
        "It tells little and invites no second look",
    ),
    "fair": (
        "The {warmth} mood is pleasant",
        "It hints at a story",
        "There is some feeling in the {warmth} scene",
        "It records the moment more than it tells it",
    ),
    "good": (
        "The {warmth} mood draws us in",
        "The scene tells a story",
        "The {warmth} light is full of feeling",
        "It invites the eye to stay",
    ),
}
UNKNOWN = "the subject"
UNNAMED_SHARE, KIND_SHARE = 0.2, 0.35
"""Shares of texts that leave a known subject unnamed, and that say its kind.

A model that learns from them and takes the likeliest words names a subject only where it is surer of it than of its
kind. Otherwise all animals that it has not seen become the one that it has seen most.
"""


def word_for(subject: str | None, rng: np.random.Generator) -> str:
    """A subject's name, its kind, or neither (`UNNAMED_SHARE`, `KIND_SHARE`)."""
    drawn = rng.random()
    if subject is None or drawn < UNNAMED_SHARE:
        return UNKNOWN
    return KIND_OF.get(subject, subject) if drawn < UNNAMED_SHARE + KIND_SHARE else subject


def describe_photo(facts: PictureFacts, rng: np.random.Generator) -> list[str]:
    """Four sentences about composition, light, exposure and colour, in random order, without a verdict."""

    def pick(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    subject = word_for(facts.subject, rng)
    composition = [pick(PLACE[facts.place]).format(subject), pick(CLUTTER[facts.clutter])]
    if TILT[facts.tilt]:
        composition.insert(1, pick(TILT[facts.tilt]))
    detail = [pick(FOCUS[facts.focus]), *([pick(GRAIN[facts.grain])] if GRAIN[facts.grain] else [])]
    colours = pick(CLASH[facts.clash]).format(pick(SATURATION[facts.saturation]))
    sentences = [
        f"{', '.join(composition[:-1])}, and {composition[-1]}",
        pick(CONTRAST[facts.contrast]),
        f"{pick(EXPOSURE[facts.exposure])}, {' and '.join(detail)}",
        colours,
    ]
    return [f"{sentences[i][0].upper()}{sentences[i][1:]}." for i in rng.permutation(len(sentences))]


def criticise_photo(facts: PictureFacts, score: float, rng: np.random.Generator) -> str:
    """A critique with a mood that fits a score in [0, 1]. It names neither the score nor a verdict.

    The mood stands anywhere. A model that ends with one of a few verdicts or moods takes its score from that, gives one
    of a few scores, and loses the order within them.
    """
    moods = MOOD[level_of(score)]
    sentences = describe_photo(facts, rng)
    mood = moods[int(rng.integers(len(moods)))].format(warmth=facts.warmth)
    sentences.insert(int(rng.integers(len(sentences) + 1)), mood + ".")
    return " ".join(sentences)
