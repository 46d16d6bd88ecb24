"""BAID: 60,337 artworks of boldbrush.com, scores made from the votes of its monthly contests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aesr1.ratings.label_files import DataSet, image_path, require_file
from aesr1.records import Rating
from aesr1.text_tables import parse_score, read_table

DATA_SET = DataSet(
    name="baid",
    title="BAID",
    licence="CC BY-NC-ND 4.0",
    source="Yi et al.: BAID, CVPR 2023",
    images=("images", "image", "."),
    published=({"train": 50_737, "val": 3_200, "test": 6_400},),
)


def load(root: Path) -> Iterator[Rating]:
    """Reads `dataset/train_set.csv`, `val_set.csv` and `test_set.csv`."""
    for split in ("train", "val", "test"):
        table = require_file(root, f"dataset/{split}_set.csv", f"{split}_set.csv")
        for where, cells in read_table(table, columns=("image", "score"), unique="image"):
            yield DATA_SET.rating(
                image=image_path(cells["image"], where),
                score=parse_score(cells["score"], "score", where, low=0, high=10),
                split=split,
            )
