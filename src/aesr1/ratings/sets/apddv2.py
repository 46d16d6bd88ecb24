"""APDDv2: 10,023 drawings and paintings, marked by experts as a whole and on ten attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from aesr1.ratings.label_files import DataSet, find_file, image_path, require_file
from aesr1.ratings.split import draw_splits
from aesr1.records import Rating
from aesr1.text_tables import is_utf8, parse_score, read_table

DATA_SET = DataSet(
    name="apddv2",
    title="APDDv2",
    licence="CC BY-NC-ND 4.0 (its README; its LICENSE file says CC BY 4.0)",
    source="Jin et al.: APDDv2, NeurIPS 2024",
    images=("APDDv2images", "images", "image", "."),
    published=({"train": 8_019, "val": 1_002, "test": 1_002},),
)
FILES = {"train": "train.csv", "val": "valid.csv", "test": "test.csv"}
ATTRIBUTES = (
    "Theme and logic",
    "Creativity",
    "Layout and composition",
    "Space and perspective",
    "The sense of order",
    "Light and shadow",
    "Color",
    "Details and texture",
    "The overall",
    "Mood",
)
WHOLE = "Total aesthetic score"


def load(root: Path) -> Iterator[Rating]:
    """Reads `csvfiles/{train,valid,test}.csv` (0–10), else `APDDv2-10023.csv` (0–100, GB18030, split drawn)."""
    if find_file(root, "csvfiles/train.csv", "train.csv") is not None:
        for split, name in FILES.items():
            table = require_file(root, f"csvfiles/{name}", name)
            for where, cells in read_table(table, columns=("filename", "Score", *ATTRIBUTES), unique="filename"):
                yield _rating(where, cells, parse_score(cells["Score"], "Score", where, low=0, high=10), split)
        return
    table = require_file(root, "APDDv2-10023.csv", "csvfiles/train.csv")
    columns = ("filename", WHOLE, *ATTRIBUTES)
    encoding = "utf-8-sig" if is_utf8(table) else "gb18030"  # users may have converted it
    lines = list(read_table(table, columns=columns, unique="filename", encoding=encoding))
    drawn = draw_splits([line.cells["filename"] for line in lines], DATA_SET.published[0])
    for (where, cells), split in zip(lines, drawn, strict=True):
        yield _rating(where, cells, parse_score(cells[WHOLE], WHOLE, where, low=0, high=100), split)


def _rating(where: str, cells: Mapping[str, str], score: float, split: str) -> Rating:
    """An attribute cell is often empty: nobody rated that attribute of the picture."""
    marked = {name: parse_score(cells[name], name, where, low=0, high=10) for name in ATTRIBUTES if cells[name]}
    return DATA_SET.rating(
        image=image_path(cells["filename"], where),
        score=score,
        split=split,
        attributes=marked or None,
    )
