"""What a photograph shows: ImageNet's thousand classes as some sixty plain subjects of five kinds. Pure functions.

The numbers are ImageNet's (ILSVRC 2012), in the usual order of its class names.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SURE = 0.5
"""Least probability of a subject, summed over its classes. At this bound 9 of 10 names are right on OASIS."""

SURE_OF_KIND = 0.7
"""Likewise, of a kind: four hundred classes of animals come to half by chance."""

SURE_OF_PERSON = 0.6
"""Least value from which on a person is named."""
PERSON = "the person"

_Classes = Sequence[int | tuple[int, int]]  # a class, or the first and the last of several

SUBJECTS: dict[str, _Classes] = {
    "the dog": [(151, 268)],
    "the wolf": [(269, 275)],
    "the fox": [(277, 280)],
    "the cat": [(281, 285)],
    "the big cat": [(286, 293)],
    "the bear": [(294, 297)],
    "the elephant": [101, 385, 386],
    "the horse": [339, 603],
    "the zebra": [340],
    "the pig": [(341, 343)],
    "the cow": [(345, 347)],
    "the sheep": [(348, 350)],
    "the antelope": [(351, 353)],
    "the camel": [354],
    "the ape": [(365, 384)],
    "the rabbit": [(330, 332)],
    "the rodent": [(333, 338)],
    "the bird": [(7, 24), (80, 100), (127, 146)],
    "the shark": [(2, 4)],
    "the fish": [0, 1, (389, 397)],
    "the jellyfish": [107],
    "the turtle": [(33, 37)],
    "the lizard": [(38, 48)],
    "the crocodile": [49, 50],
    "the snake": [(52, 68)],
    "the frog": [(30, 32)],
    "the spider": [70, (72, 77)],
    "the butterfly": [(321, 326)],
    "the insect": [(300, 320)],
    "the snail": [113, 114],
    "the crab": [(118, 121)],
    "the flower": [985, 986],
    "the mushroom": [947, (991, 997)],
    "the fruit": [(948, 957)],
    "the vegetables": [(936, 946)],
    "the plate of food": [923, 924, 926, (930, 935), (959, 965)],
    "the dessert": [(927, 929)],
    "the cup": [504, 925, 967, 968],
    "the mountain": [970, 979, 980],
    "the cliff": [972],
    "the lake": [975],
    "the coast": [(976, 978)],
    "the boat": [472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 871, 914],
    "the aeroplane": [404, 895],
    "the balloon": [417],
    "the parachute": [701],
    "the train": [466, 547, 705, 820, 829],
    "the car": [436, 468, 511, 609, 627, 656, 661, 751, 817],
    "the lorry": [555, 569, 675, 717, 864, 867],
    "the bus": [654, 779, 874],
    "the bicycle": [444, 671],
    "the motorcycle": [665, 670],
    "the church": [497, 663, 668],
    "the castle": [483, 698],
    "the bridge": [821, 839, 888],
    "the lighthouse": [437],
    "the fountain": [562],
    "the fence": [489, 716],
    "the tent": [672],
    "the computer": [508, 527, 620, 664, 681],
    "the guitar": [402, 546],
    "the piano": [579, 881],
    "the ball": [429, 430, 522, 574, 722, 768, 805, 852, 890],
    "the candle": [470],
    "the umbrella": [879],
    "the clock": [409, 892],
    "the skier": [795],
}
"""Words of a text → classes. ImageNet has no class for people."""


def _between(first: str, last: str) -> tuple[str, ...]:
    names = tuple(SUBJECTS)
    return names[names.index(first) : names.index(last) + 1]


KINDS: dict[str, tuple[str, ...]] = {
    "the animal": _between("the dog", "the crab"),
    "the food": _between("the fruit", "the dessert"),
    "the landscape": _between("the mountain", "the coast"),
    "the vehicle": (*_between("the boat", "the balloon"), *_between("the train", "the motorcycle")),
    "the building": _between("the church", "the lighthouse"),
}
"""Words of a text → subjects. Other subjects have no kind."""
KIND_OF = {subject: kind for kind, subjects in KINDS.items() for subject in subjects}
_NAMES = tuple(SUBJECTS)
_MEMBERS = np.zeros((1000, len(_NAMES)), dtype=np.float32)
for _column, _classes in enumerate(SUBJECTS.values()):
    for _entry in _classes:
        _first, _last = (_entry, _entry) if isinstance(_entry, int) else _entry
        _MEMBERS[_first : _last + 1, _column] = 1


def name_subject(classes: NDArray[np.float32], person: float) -> str | None:
    """The subject of a picture where one is likely enough, else its kind where that is.

    classes: (1000,), sums to 1. person: about 1 where a person is the subject (`model.image_classes`).
    """
    of_subjects = classes @ _MEMBERS
    best = int(of_subjects.argmax())
    if of_subjects[best] > SURE:
        return _NAMES[best]
    for kind, subjects in KINDS.items():
        if sum(of_subjects[_NAMES.index(subject)] for subject in subjects) > SURE_OF_KIND:
            return kind
    return PERSON if person > SURE_OF_PERSON else None
