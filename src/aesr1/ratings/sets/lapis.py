"""LAPIS: 11,723 paintings, about 24 raters each, marks 0–100."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from aesr1.errors import AesError
from aesr1.ratings.label_files import DataSet, image_path, require_file
from aesr1.records import Rating
from aesr1.text_tables import parse_score, read_lines, read_table

DATA_SET = DataSet(
    name="lapis",
    title="LAPIS",
    licence="on request from its authors",
    source="Maerten, Chen, De Winter, Bossens, Wagemans: LAPIS, CVPR 2025",
    images=("images", "datasetImages_originalSize", "."),
    published=({"all": 11_723},),
    counted=False,
)
TABLE = "LAPIS_individualratings_metaANDdemodata.csv"
LISTS = {"train": "TrainImageSet.txt", "val": "ValImageSet.txt", "test": "TestImageSet.txt"}


def load(root: Path) -> Iterator[Rating]:
    """Reads the table of single marks (`image_filename`, `response`) and the official image lists in `imageset/`.

    `image_filename` may start with the folder of the style; pictures and lists do not. Rows without a response are
    left out.
    """
    table = require_file(root, f"annotation/{TABLE}", TABLE)
    marks: dict[str, list[float]] = {}
    for where, cells in read_table(table, columns=("image_filename", "response")):
        if cells["response"] in ("", "NA", "nan"):
            continue
        name = image_path(cells["image_filename"], where).rpartition("/")[2]
        marks.setdefault(name, []).append(parse_score(cells["response"], "response", where, low=0, high=100))
    seen: dict[str, str] = {}
    for split, file in LISTS.items():
        listed = require_file(root, f"imageset/{file}", file)
        for where, words in read_lines(listed):
            name = image_path(" ".join(words), where)
            if name in seen:
                raise AesError(f"{where}: {name} is in {seen[name]} too", fix="keep each image in one list")
            seen[name] = split
            if name not in marks:
                raise AesError(f"{where}: there is no rating of {name}", fix=f"check that {table.name} is complete")
            yield _rating(name, marks[name], split)


def _rating(name: str, marks: list[float], split: str) -> Rating:
    mean = sum(marks) / len(marks)
    return DATA_SET.rating(
        image=name,
        score=min(1.0, max(0.0, mean)),  # rounding may put the mean slightly above 1
        split=split,
        rater_std=math.sqrt(sum((mark - mean) ** 2 for mark in marks) / len(marks)),
        raters=len(marks),
    )
