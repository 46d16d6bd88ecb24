"""Scores that another program made, in a table or as rows of `aesr1 score`, for the pictures that are rated."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from aesr1.errors import AesError
from aesr1.json_lines import read_rows
from aesr1.records import Prediction, Rating
from aesr1.terminal import say
from aesr1.text_tables import check_scale, parse_score, plain_number, read_table, separator_of

IMAGE_NAMES = ("image", "image_name", "filename", "file", "path", "name", "img_path")
SCORE_NAMES = ("score", "prediction", "predicted", "pred", "mos", "mean")
REASONING_NAMES = ("reasoning", "rationale", "critique", "text")


def read_predictions(
    file: Path, ratings: Sequence[Rating], *, name: str, scale: tuple[float, float] = (0.0, 1.0)
) -> list[Prediction]:
    """One prediction for each rated picture, in the order of the ratings; without a score where the file has none.

    The file is a CSV, TSV or JSON Lines with a column of pictures and one of scores on the scale, and maybe one of
    reasons; or what `aesr1 score` writes. A picture is found by its path, written in full or from the folder of the
    file, else by its file name where no two rated pictures share it. AesError on a score outside the scale, on a
    picture that is scored twice, and where no rated picture is scored.
    """
    if not file.is_file():
        raise AesError(f"there is no file {file}", fix="check the path")
    check_scale(*scale)
    rows = _own_rows(file) or list(_table_rows(file, scale))
    of_path, of_name = _index(ratings)
    found: dict[str, Prediction] = {}
    unknown = 0
    for row in rows:
        image = of_path.get(os.path.normpath(file.parent.absolute() / row.image)) or of_name.get(Path(row.image).name)
        if image is None:
            unknown += 1
        elif image in found:
            raise AesError(f"{file} scores {row.image} twice", fix="keep one row for each picture")
        else:
            found[image] = row
    if not found:
        first = f", first: {rows[0].image}" if rows else ""
        raise AesError(
            f"none of the {len(rows):,} pictures of {file} is rated{first}; the ratings begin with {ratings[0].image}",
            fix="use the same paths or file names in both",
        )
    if unknown:
        say(f"{name}: {unknown:,} of {len(rows):,} scored pictures are not rated here and are left out")
    source = next(iter(found.values()))
    return [_about(rating.image, found.get(rating.image), source) for rating in ratings]


def _about(image: str, row: Prediction | None, source: Prediction) -> Prediction:
    """The prediction under the rating's own path; without one, a row that says so."""
    values = (row or source).__dict__ | {"image": image}
    if row is None:
        values |= {"score": None, "score_std": None, "readable": None, "reasoning": None, "reply": ""}
    return Prediction(**values)


def _index(ratings: Sequence[Rating]) -> tuple[dict[str, str], dict[str, str]]:
    """The rated pictures by path, and by file name where it is unique."""
    images = list(dict.fromkeys(rating.image for rating in ratings))
    names = Counter(Path(image).name for image in images)
    by_name = {Path(image).name: image for image in images if names[Path(image).name] == 1}
    return {os.path.normpath(image): image for image in images}, by_name


def _own_rows(file: Path) -> list[Prediction]:
    """The rows of a file that `aesr1 score` or `aesr1 eval` wrote; empty for another file."""
    if file.suffix != ".jsonl":
        return []
    with file.open(encoding="utf-8", errors="replace") as lines:
        first = next((line for line in lines if line.strip()), "")
    return read_rows(file, Prediction) if '"decoding"' in first and '"reply"' in first else []


def _table_rows(file: Path, scale: tuple[float, float]) -> Iterator[Prediction]:
    low, high = scale
    for where, cells in _json_rows(file) if file.suffix in (".jsonl", ".json") else _csv_rows(file):
        image, score, reasoning = (_column(cells, names) for names in (IMAGE_NAMES, SCORE_NAMES, REASONING_NAMES))
        if image is None or score is None:
            missing = "pictures" if image is None else "scores"
            wanted = IMAGE_NAMES if image is None else SCORE_NAMES
            raise AesError(
                f"{where}: no column of {missing}; there are {', '.join(cells)}",
                fix=f"name it one of {', '.join(wanted)}",
            )
        text = cells[reasoning] if reasoning else ""
        value = parse_score(cells[score], score, where, low=low, high=high) if cells[score] else None
        yield Prediction(
            image=cells[image],
            score=value,
            score_std=None,
            readable=None if not text else value is not None,
            reasoning=text or None,
            reply=text,
            model=str(file),
            revision="given",
            decoding=f"{score} of the file, scale {low:g} to {high:g}",
        )


def _column(cells: dict[str, str], names: Sequence[str]) -> str | None:
    return next((column for name in names for column in cells if column.lower() == name), None)


def _csv_rows(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    separator = separator_of(file)
    for where, cells in read_table(file, separator=separator):
        score = _column(cells, SCORE_NAMES)
        yield where, cells | ({score: plain_number(cells[score], separator)} if score else {})


def _json_rows(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise AesError(f"{where} is not JSON: {error}", fix="write one JSON object on each line") from error
        if not isinstance(row, dict):
            raise AesError(f"{where} is no JSON object", fix="write one JSON object on each line")
        yield where, {str(key): "" if value is None else str(value) for key, value in row.items()}
