"""Imports a user's own table: an image column, and a mean on a stated scale or vote counts."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aesr1.errors import AesError
from aesr1.images.find import stored_path
from aesr1.json_lines import write_rows
from aesr1.outputs import staged_output, write_run
from aesr1.ratings.label_files import image_path, mean_and_std
from aesr1.records import SPLITS, Rating
from aesr1.text_tables import (
    check_scale,
    header_of,
    parse_count,
    parse_number,
    parse_std,
    plain_number,
    read_table,
    require_unique,
    separator_of,
)

IMAGE_NAMES = ("image", "image_name", "filename", "file", "path", "name")
MEAN_NAMES = ("mean", "score", "mos", "rating")
STD_NAMES = ("sd", "std", "rater_std", "spread")
_VOTES = re.compile(r"(?:votes?_|c)(\d+)")


@dataclass(frozen=True)
class CsvConfig:
    """How to read the table. Columns with usual names are found without settings."""

    file: Path
    output: Path
    images: Path | None = None  # folder of the pictures; default: the folder of the table
    image_column: str | None = None
    mean_column: str | None = None
    scale: tuple[float, float] | None = None  # lowest and highest possible mark; vote columns give it too
    domain: str | None = None  # default: the name of the table's folder
    split: str | None = None  # for rows without one in the table; default: random, by val_share
    val_share: float = 0.1
    seed: int = 0
    allow_missing: bool = False
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (column, the values of the rows that are kept)


def import_csv(config: CsvConfig) -> Path:
    """Write `ratings.jsonl` into the output folder and return its path. AesError names line and column."""
    started = time.time()
    ratings = list(read_csv(config))
    if not ratings:
        if config.where:
            raise AesError(f"no row of {config.file} has these values", fix="write --where as the table has them")
        raise AesError(f"{config.file} has a header but no rows", fix="check that this is the right file")
    missing = [rating.image for rating in ratings if not Path(rating.image).is_file()]
    if missing and not config.allow_missing:
        raise AesError(
            f"{len(missing):,} of {len(ratings):,} images of {config.file} are missing, first: {missing[0]}",
            fix="pass --images DIR, or --allow-missing to leave out their rows",
        )
    left_out = set(missing)
    ratings = [rating for rating in ratings if rating.image not in left_out]
    with staged_output(config.output, "ratings.jsonl", "run.json") as part:
        write_rows(part / "ratings.jsonl", ratings)
        counts = {"rows": len(ratings), "missing": len(missing)}
        write_run(part, "ratings import csv", config, started=started, **counts)
    return config.output / "ratings.jsonl"


def read_csv(config: CsvConfig) -> Iterator[Rating]:
    """The rows of the table as ratings, scores mapped from the scale to 0–1.

    Rows without a split are divided at random by `val_share`; the same seed gives the same split.
    """
    if not config.file.is_file():
        raise AesError(f"there is no file {config.file}", fix="check the path")
    root = (config.images or config.file.parent).absolute()
    columns = header_of(config.file, separator=None)
    image, mean, votes = _columns(config, columns)
    for column, _ in config.where:
        if column not in columns:
            raise AesError(
                f"{config.file} has no column {column!r}; it has {', '.join(columns)}",
                fix="name one of those to --where",
            )
    low, high = _scale(config, votes)
    marks = _marks(votes, low, high)
    if not 0 <= config.val_share <= 1:
        raise AesError(f"val_share is {config.val_share}", fix="give a share from 0 to 1")
    rng = np.random.default_rng(config.seed)
    seen: set[str] = set()
    separator = separator_of(config.file)
    for where, row in read_table(config.file, separator=separator):
        if any(row[column].strip() not in values for column, values in config.where):
            continue
        cells = {column: row[column] if column == image else plain_number(row[column], separator) for column in row}
        name = image_path(cells[image], where)
        require_unique(seen, name, where)
        counts = tuple(parse_count(cells[column], column, where) for column in votes)
        _check_raters(cells, counts, where)
        mean_mark = _mean_mark(cells, mean, marks, counts, where)
        rater_std = _rater_std(cells, columns, marks, counts, where, low=low, high=high)
        drawn = "val" if rng.random() < config.val_share else "train"
        split = cells.get("split") or config.split or drawn
        if split not in SPLITS:
            raise AesError(f"{where}: split is {split!r}", fix=f"use {', '.join(SPLITS)}")
        yield Rating(
            image=stored_path(root / name),
            score=(mean_mark - low) / (high - low),
            domain=config.domain or config.file.absolute().parent.name,
            split=split,
            rater_std=rater_std,
            raters=sum(counts) or _raters(cells, where),
            votes=counts or None,
        )


def _raters(cells: dict[str, str], where: str) -> int | None:
    return parse_count(cells["raters"], "raters", where) if cells.get("raters") else None


def _check_raters(cells: dict[str, str], counts: tuple[int, ...], where: str) -> None:
    raters = _raters(cells, where)
    if counts and raters is not None and sum(counts) != raters:
        raise AesError(f"{where}: the votes sum to {sum(counts)}, raters is {raters}", fix="correct or remove the row")


def _columns(config: CsvConfig, columns: list[str]) -> tuple[str, str | None, list[str]]:
    """The image column, the column of the mean (or None) and the vote columns in order of their marks."""

    def find(chosen: str | None, usual: tuple[str, ...], meaning: str) -> str | None:
        if chosen is not None and chosen not in columns:
            raise AesError(
                f"{config.file} has no column {chosen!r}; it has {', '.join(columns)}", fix=f"name the {meaning} column"
            )
        return chosen or next((name for name in columns if name.lower() in usual), None)

    votes = sorted((name for name in columns if _VOTES.fullmatch(name)), key=_mark)
    image = find(config.image_column, IMAGE_NAMES, "image")
    mean = find(config.mean_column, MEAN_NAMES, "mean")
    if image is None:
        raise AesError(
            f"{config.file} has no image column; it has {', '.join(columns)}",
            fix=f"pass --image-column, or rename it to one of {', '.join(IMAGE_NAMES)}",
        )
    if mean is None and not votes:
        raise AesError(
            f"{config.file} has neither a mean nor vote columns; it has {', '.join(columns)}",
            fix="pass --mean-column and --scale LOW HIGH, or have columns votes_1, votes_2 …",
        )
    return image, mean, votes


def _scale(config: CsvConfig, votes: list[str]) -> tuple[float, float]:
    if config.scale is not None:
        low, high = config.scale
        check_scale(low, high)
        return low, high
    if not votes:
        raise AesError(
            f"the scale of {config.file} is not known, and the marks in the file need not reach its ends",
            fix="pass --scale LOW HIGH, the lowest and highest mark a rater could give",
        )
    return float(_mark(votes[0])), float(_mark(votes[-1]))


def _marks(votes: list[str], low: float, high: float) -> NDArray[np.float64]:
    """The mark of each vote column; without vote columns the two ends of the scale."""
    marks = np.array([float(_mark(name)) for name in votes] or [low, high])
    if marks.min() < low or marks.max() > high:
        raise AesError(
            f"the vote columns run from {marks.min():g} to {marks.max():g}, the scale from {low:g} to {high:g}",
            fix="pass the scale of the votes",
        )
    return marks


def _mean_mark(
    row: dict[str, str], mean: str | None, marks: NDArray[np.float64], counts: tuple[int, ...], where: str
) -> float:
    """The mean mark of a row: from the mean column if there is one, else from the votes."""
    if counts and not sum(counts):
        raise AesError(f"{where}: there are no votes", fix="remove the row")
    voted = float(np.average(marks, weights=counts)) if counts else None
    if mean is None:
        return float(voted or 0.0)
    low, high = marks.min(), marks.max()
    value = parse_number(row[mean], mean, where)
    if not low <= value <= high:
        raise AesError(
            f"{where}: {mean} is {value:g}, outside the scale {low:g}–{high:g}",
            fix="pass the right --scale, or correct the row",
        )
    if voted is not None and abs(value - voted) > 0.02 * (high - low):
        raise AesError(f"{where}: the votes average {voted:.3f}, {mean} is {value:g}", fix="correct the row")
    return value


def _rater_std(
    row: dict[str, str],
    columns: list[str],
    marks: NDArray[np.float64],
    counts: tuple[int, ...],
    where: str,
    *,
    low: float,
    high: float,
) -> float | None:
    """The standard deviation of single votes, 0–1 scale: from its column, else from the votes, else None."""
    given = next((name for name in columns if name.lower() in STD_NAMES and row[name]), None)
    if given is not None:
        return parse_std(row[given], given, where, low=low, high=high)
    return mean_and_std(counts, marks.tolist())[1] / (high - low) if counts else None


def _mark(column: str) -> int:
    return int(column.strip("votesc_"))
