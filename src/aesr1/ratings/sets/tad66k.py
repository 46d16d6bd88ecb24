"""TAD66K: 66,327 photographs of 47 themes, each rated by its theme's own criteria."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aesr1.errors import AesError
from aesr1.ratings.label_files import RESEARCH, DataSet, image_path, require_file
from aesr1.records import Rating
from aesr1.text_tables import parse_score, read_table

DATA_SET = DataSet(
    name="tad66k",
    title="TAD66K",
    licence=RESEARCH,
    source="He et al.: TAD66K and TANet, IJCAI 2022",
    images=("TAD66K", "images", "image", "."),
    published=({"train": 52_248, "test": 14_079},),
)


def load(root: Path) -> Iterator[Rating]:
    """Reads `merge/train.csv` and `merge/test.csv`. The tables by theme (`unmerge`) have a different split."""
    if root.name == "unmerge":
        raise AesError(
            f"{root} is split by theme, which is not the split of published results",
            fix="pass its parent folder, which holds merge/",
        )
    for split in ("train", "test"):
        table = require_file(root, f"merge/{split}.csv", f"labels/merge/{split}.csv", f"{split}.csv")
        for where, cells in read_table(table, columns=("image", "score"), unique="image"):
            yield DATA_SET.rating(
                image=image_path(cells["image"], where),
                score=parse_score(cells["score"], "score", where, low=0, high=10),
                split=split,
            )
