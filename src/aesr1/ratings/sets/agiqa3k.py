"""AGIQA-3K: 2,982 generated pictures of 300 prompts, rated for quality and for how well they fit the prompt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aesr1.ratings.label_files import DataSet, image_path, require_file
from aesr1.ratings.split import draw_splits
from aesr1.records import Rating
from aesr1.text_tables import parse_number, parse_score, read_table

DATA_SET = DataSet(
    name="agiqa-3k",
    title="AGIQA-3K",
    licence="MIT",
    source="Li et al.: AGIQA-3K, IEEE TCSVT 2023",
    images=("AGIQA-3K", "images", "."),
    published=({"all": 2_982},),
)
COLUMNS = ("name", "prompt", "mos_quality", "std_quality", "mos_align")
SHARES = {"train": 0.8, "test": 0.2}


def load(root: Path) -> Iterator[Rating]:
    """Reads `data.csv`. There is no official split: a fifth of the prompts is drawn for test, seed 0."""
    lines = list(read_table(require_file(root, "data.csv"), columns=COLUMNS, unique="name"))
    drawn = draw_splits([line.cells["prompt"] for line in lines], SHARES)
    for (where, cells), split in zip(lines, drawn, strict=True):
        yield DATA_SET.rating(
            image=image_path(cells["name"], where),
            score=parse_score(cells["mos_quality"], "mos_quality", where, low=0, high=5),
            split=split,
            rater_std=parse_number(cells["std_quality"], "std_quality", where) / 5,
            attributes={"fits the prompt": parse_score(cells["mos_align"], "mos_align", where, low=0, high=5)},
            group=cells["prompt"],
        )
