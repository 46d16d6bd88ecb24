"""PARA: 31,220 photographs, about 25 raters each, marks in halves on 1–5 and rich attributes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aesr1.errors import AesError
from aesr1.ratings.label_files import DataSet, image_path, mean_and_std, require_file
from aesr1.records import Rating
from aesr1.text_tables import parse_count, parse_number, parse_score, read_table

DATA_SET = DataSet(
    name="para",
    title="PARA",
    licence="research and learning only",
    source="Yang et al.: PARA, CVPR 2022",
    images=("imgs", "."),
    published=({"train": 28_220, "test": 3_000},),
    counted=False,
)
FILES = {"train": "PARA-GiaaTrain.csv", "test": "PARA-GiaaTest.csv"}
MARKS = tuple(1 + half / 2 for half in range(9))
VOTES = tuple(f"aestheticScore_{mark:.1f}" for mark in MARKS)
ATTRIBUTES = {
    "qualityScore_mean": "quality",
    "compositionScore_mean": "composition",
    "colorScore_mean": "colour",
    "dofScore_mean": "depth of field",
    "lightScore_mean": "light",
    "contentScore_mean": "content",
    "contentPreference_mean": "content preference",
    "willingnessToShare_mean": "willingness to share",
}


def load(root: Path) -> Iterator[Rating]:
    """Reads `annotation/PARA-GiaaTrain.csv` and `-GiaaTest.csv`, by column name: the readme has another order."""
    for split, name in FILES.items():
        table = require_file(root, f"annotation/{name}", name)
        columns = ("sessionId", "imageName", "aestheticScore_mean", "aestheticScore_std", *VOTES)
        for where, cells in read_table(table, columns=columns):
            votes = tuple(parse_count(cells[vote], vote, where) for vote in VOTES)
            if not sum(votes):
                raise AesError(f"{where}: there are no votes", fix="remove the row")
            score = parse_score(cells["aestheticScore_mean"], "aestheticScore_mean", where, low=1, high=5)
            voted = mean_and_std(votes, MARKS)[0]
            if abs(voted - (1 + 4 * score)) > 0.08:
                raise AesError(
                    f"{where}: the votes average {voted:.3f}, aestheticScore_mean is {1 + 4 * score:.3f}",
                    fix="correct or remove the row",
                )
            yield DATA_SET.rating(
                image=image_path(f"{cells['sessionId']}/{cells['imageName']}", where),
                score=score,
                split=split,
                rater_std=parse_number(cells["aestheticScore_std"], "aestheticScore_std", where) / 4,
                raters=sum(votes),
                votes=votes,
                attributes={
                    name: parse_score(cells[column], column, where, low=1, high=5)
                    for column, name in ATTRIBUTES.items()
                    if cells.get(column)
                }
                or None,
            )
