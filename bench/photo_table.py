"""OASIS's table of photographs and ratings, for the benchmarks: rows, human scores, folds by theme."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aesr1.aescot.subjects import PERSON

FOLDS = 5
WATER = ("lake", "dock", "flood", "waterfall", "sunset", "nature", "rafting", "seal", "parasailing")
HEIGHTS = ("volcano", "lava", "rock-climbing", "lake", "nature", "snow", "hang-gliding", "waterfall", "camping")
THEMES = {
    "the dog": ("dog",),
    "the cat": ("cat",),
    "the bear": ("bear",),
    "the elephant": ("elephant",),
    "the horse": ("horse",),
    "the zebra": ("zebra",),
    "the ape": ("gorrila", "orangutan"),
    "the rodent": ("ferret", "meerkat"),
    "the bird": ("bird", "penguins", "pigeon"),
    "the shark": ("shark",),
    "the fish": ("stingray",),
    "the insect": ("bee", "cockroach"),
    "the flower": ("flowers", "wedding"),
    "the mushroom": (),
    "the fruit": ("food",),
    "the plate of food": ("food", "soup", "toast", "barbeque", "picnic"),
    "the dessert": ("dessert", "birthday"),
    "the cup": ("cups", "coffee", "drink", "soup"),
    "the mountain": HEIGHTS,
    "the cliff": HEIGHTS,
    "the lake": WATER,
    "the coast": WATER,
    "the boat": ("rafting", "dock", "lake"),
    "the aeroplane": ("plane-crash", "parachuting", "skydiving"),
    "the parachute": ("parachuting", "parasailing", "skydiving", "hang-gliding"),
    "the car": ("car-race", "traffic", "street", "road"),
    "the bicycle": ("biking",),
    "the bridge": ("bridge",),
    "the fence": ("fence", "cemetery", "prison"),
    "the tent": ("camping",),
    "the computer": ("keyboard", "office-supplies"),
    "the guitar": ("band", "performance"),
    "the ball": ("soccer",),
    "the candle": ("birthday",),
    "the skier": ("cold", "snow"),
    "the food": ("food", "soup", "toast", "barbeque", "picnic", "dessert", "birthday", "pumpkin"),
    "the landscape": (*WATER, *HEIGHTS, "path", "woods", "rainbow", "lightning", "moon", "road"),
    "the vehicle": ("plane-crash", "car-race", "traffic", "street", "road", "biking", "rafting", "dock"),
    "the building": ("bridge", "house", "city", "skyscraper", "prison", "windmill", "street", "cemetery"),
}
"""The themes in which a subject is right where it is named, by the themes' names. Any other counts as wrong."""
CATEGORY_OF = {PERSON: "person", "the animal": "animal"}
"""The category in which these words are right."""


class PhotoTable(NamedTuple):
    """n photographs."""

    rows: list[dict[str, str]]  # as in the table
    paths: list[str]
    human: NDArray[np.float64]  # (n,) mean beauty, 0–1
    themes: list[str]  # the file name before its number
    fold: NDArray[np.int64]  # (n,) all photographs of a theme are in one

    def shows(self, subject: str, number: int) -> bool:
        """Whether a photograph shows what a reply names, by its theme; persons and animals by its category."""
        if subject in CATEGORY_OF:
            return self.rows[number]["category"] == CATEGORY_OF[subject]
        return self.themes[number] in THEMES.get(subject, ())

    def of(self, column: str) -> NDArray[np.str_]:
        """(n,) a column."""
        return np.array([row[column] for row in self.rows])


def read_table(table: Path) -> PhotoTable:
    """Read OASIS/ratings.csv."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    themes = [re.sub(r"-\d+\.jpg$", "", Path(row["image"]).name) for row in rows]
    paths = [str(table.parent.absolute() / row["image"]) for row in rows]
    shuffled = np.random.default_rng(0).permutation(sorted(set(themes)))
    fold_of = {theme: number % FOLDS for number, theme in enumerate(shuffled)}
    human = np.array([(float(row["mean"]) - 1) / 6 for row in rows])
    return PhotoTable(rows, paths, human, themes, np.array([fold_of[theme] for theme in themes]))
