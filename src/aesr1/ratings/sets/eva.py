"""EVA: 4,070 photographs from AVA, 30–46 raters each, marks 0–10 and four attributes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aesr1.errors import AesError
from aesr1.ratings.label_files import DataSet, find_file, mean_and_std, require_file
from aesr1.ratings.split import draw_splits
from aesr1.records import Rating
from aesr1.text_tables import parse_count, parse_score, read_table

DATA_SET = DataSet(
    name="eva",
    title="EVA",
    licence="labels CC0; the pictures belong to their photographers",
    source="Kang, Valenzise, Dufaux: EVA, ATQAM/MAST 2020",
    images=("EVA_together", "images/EVA_together", "images", "."),
    published=({"all": 4_070},),
    counted=False,
)
MARKS = tuple(range(11))
ATTRIBUTES = {
    "visual": "light and colour",
    "composition": "composition and depth",
    "quality": "quality",
    "semantic": "semantics",
}
SHARES = {"train": 3_500 / 4_070, "test": 570 / 4_070}


@dataclass
class _Image:
    """The votes on one image so far."""

    votes: list[int] = field(default_factory=lambda: [0] * len(MARKS))
    attributes: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ATTRIBUTES, 0.0))


def load(root: Path) -> Iterator[Rating]:
    """Reads `votes_filtered.csv`: one row for each vote, separator "=". The split is drawn (3,500 and 570), seed 0."""
    table = require_file(
        root, "votes_filtered.csv", "data/votes_filtered.csv", "eva-dataset-master/data/votes_filtered.csv"
    )
    images: dict[str, _Image] = {}
    columns = ("image_id", "score", *ATTRIBUTES)
    for where, cells in read_table(table, columns=columns, separator="="):
        name = cells["image_id"]
        if not name.isdecimal():
            raise AesError(f"{where}: image_id {name!r} is not a number", fix="correct or remove the row")
        mark = parse_count(cells["score"], "score", where)
        if mark not in MARKS:
            raise AesError(f"{where}: score is {mark}, outside 0–10", fix="correct or remove the row")
        image = images.setdefault(name, _Image())
        image.votes[mark] += 1
        for column in ATTRIBUTES:
            image.attributes[column] += parse_score(cells[column], column, where, low=1, high=4)
    drawn = draw_splits(list(images), SHARES)
    categories = _categories(root)
    for (name, image), split in zip(images.items(), drawn, strict=True):
        raters = sum(image.votes)
        mean, std = mean_and_std(image.votes, MARKS)
        folder = f"{categories[name]}/" if name in categories else ""
        yield DATA_SET.rating(
            image=f"{folder}{name}.jpg",
            score=mean / 10,
            split=split,
            rater_std=std / 10,
            raters=raters,
            votes=tuple(image.votes),
            attributes={label: image.attributes[column] / raters for column, label in ATTRIBUTES.items()},
        )


def _categories(root: Path) -> dict[str, str]:
    """Image → folder of its category, if the pictures lie in category folders."""
    if (root / "EVA_category").is_dir() and not any((root / name).is_dir() for name in DATA_SET.images[:2]):
        table = find_file(root, "image_content_category.csv", "data/image_content_category.csv")
        if table is not None:
            return {
                cells["image_id"]: f"EVA_category/{cells['sort']}"
                for _, cells in read_table(table, columns=("image_id", "sort"), unique="image_id")
            }
    return {}
