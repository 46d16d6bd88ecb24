"""KonIQ-10k: 10,073 photographs, about 120 votes on 1–5 each. Quality, not beauty."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from aesr1.errors import AesError
from aesr1.ratings.label_files import DataSet, find_file, image_path, mean_and_std, require_file
from aesr1.ratings.split import draw_splits
from aesr1.records import Rating
from aesr1.text_tables import parse_number, parse_score, read_table

DATA_SET = DataSet(
    name="koniq-10k",
    title="KonIQ-10k",
    licence="labels MIT; the pictures belong to their photographers",
    source="Hosu, Lin, Sziranyi, Saupe: KonIQ-10k, IEEE TIP 2020",
    images=("1024x768", "512x384", "images", "."),
    published=({"train": 7_058, "val": 1_000, "test": 2_015},),
)
DISAGREE = 0.2
"""Largest accepted difference of MOS and mean vote, 0–1 scale. MOS comes from z-scores; in the data it is ≤ .12."""
MARKS = (1, 2, 3, 4, 5)
VOTES = tuple(f"c{mark}" for mark in MARKS)
SPLITS = {"training": "train", "validation": "val", "test": "test"}


def load(root: Path) -> Iterator[Rating]:
    """Reads the table with splits (MOS 0–100, vote shares), else the one without (MOS 1–5, counts, split drawn)."""
    with_splits = find_file(root, "koniq10k_distributions_sets.csv")
    if with_splits is not None:
        for where, cells in read_table(
            with_splits, columns=("image_name", *VOTES, "MOS", "SD", "set"), unique="image_name"
        ):
            if cells["set"] not in SPLITS:
                raise AesError(f"{where}: set is {cells['set']!r}", fix=f"use {', '.join(SPLITS)}")
            score = parse_score(cells["MOS"], "MOS", where, low=0, high=100)
            yield _rating(where, cells, score, SPLITS[cells["set"]])
        return
    table = require_file(
        root,
        "koniq10k_scores_and_distributions.csv",
        "koniq10k_scores_and_distributions/koniq10k_scores_and_distributions.csv",
    )
    lines = list(read_table(table, columns=("image_name", *VOTES, "MOS", "SD"), unique="image_name"))
    drawn = draw_splits([line.cells["image_name"] for line in lines], DATA_SET.published[0])
    for (where, cells), split in zip(lines, drawn, strict=True):
        yield _rating(where, cells, parse_score(cells["MOS"], "MOS", where, low=1, high=5), split)


def _rating(where: str, cells: dict[str, str], score: float, split: str) -> Rating:
    """c1 … c5 are shares that sum to 1, or counts that sum to c_total. Both become counts."""
    votes = [parse_number(cells[name], name, where) for name in VOTES]
    raters = round(parse_number(cells["c_total"], "c_total", where)) if cells.get("c_total") else round(sum(votes))
    whole = 1.0 if abs(sum(votes) - 1) < 1e-3 else float(raters)
    if min(votes) < 0 or raters <= 0 or not math.isclose(sum(votes), whole, rel_tol=1e-3):
        raise AesError(f"{where}: the votes sum to {sum(votes):g}, not {whole:g}", fix="correct or remove the row")
    mean, std = mean_and_std(votes, MARKS)
    if abs((mean - 1) / 4 - score) > DISAGREE:
        raise AesError(
            f"{where}: the votes average {mean:.2f} of 5, MOS is {cells['MOS']}", fix="correct or remove the row"
        )
    return DATA_SET.rating(
        image=image_path(cells["image_name"], where),
        score=score,
        split=split,
        rater_std=std / 4,
        raters=raters,
        votes=tuple(round(count * raters / whole) for count in votes),
    )
