"""Reads label files line by line; errors name the file and the line."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from aesr1.errors import AesError
from aesr1.records import Rating

RESEARCH = "research use only; the pictures belong to their photographers"


@dataclass(frozen=True)
class DataSet:
    """What is known of a public data set before its files are opened."""

    name: str  # on the command line, and the rows' domain
    title: str
    licence: str
    source: str  # who published it
    images: tuple[str, ...]  # folders below the root in which its pictures are looked for
    published: tuple[Mapping[str, int], ...]  # rows by split (or "all"), of each form that the set is handed round in
    counted: bool = True  # in the authors' own files; False: the papers say so

    def rating(self, image: str, score: float, split: str, **values: Any) -> Rating:
        """A row of this set, with its name, licence and source; `values` are other fields of `Rating`."""
        return Rating(image, score, self.name, split, licence=self.licence, source=self.source, **values)


class Line(NamedTuple):
    """A row of a table: where it stands, for messages, and its cells by column name."""

    where: str
    cells: dict[str, str]


def find_file(root: Path, *candidates: str) -> Path | None:
    """The first of these files (paths below the root) that there is; the root itself where it is such a file.

    Where the root is another of the set's files, those that lie beside it are found.
    """
    if root.is_file():
        beside = (root.with_name(Path(name).name) for name in candidates)
        return next((path for path in beside if path.is_file()), None)
    return next((root / name for name in candidates if (root / name).is_file()), None)


def require_file(root: Path, *candidates: str) -> Path:
    """As `find_file`; where there is none, an AesError that says where it lies instead, two levels up or three down."""
    found = find_file(root, *candidates)
    if found is not None:
        return found
    if not root.exists():
        raise AesError(f"there is no folder {root}", fix="check the path")
    wanted = {Path(name).name for name in candidates}
    for folder in _around(root):
        beside = find_file(folder, *candidates)
        if beside is not None:
            raise AesError(
                f"{root} does not hold {candidates[0]}, {folder} does: the wrong folder level", fix=f"pass {folder}"
            )
        lying = next((name for name in wanted if (folder / name).is_file()), None)
        if lying is not None:
            raise AesError(
                f"{root} does not hold {candidates[0]}, but {folder / lying} lies there",
                fix="unpack the data set as its authors packed it, and pass its top folder",
            )
    raise AesError(
        f"{root} holds none of {', '.join(candidates)}",
        fix="pass the data set's top folder as its authors packed it, or the label file",
    )


def _around(root: Path) -> Iterator[Path]:
    """Folders two levels above and three below; links are not followed, so that a loop of them does no harm."""
    absolute = root.absolute()
    yield from absolute.parents[:2]
    for folder, below, _ in os.walk(root):
        if len(Path(folder).relative_to(root).parts) >= 3:
            below.clear()
        below.sort()
        yield Path(folder)


def header_of(file: Path, *, separator: str | None = ",") -> list[str]:
    """A table's column names, as `read_table` reads them; none of an empty file."""
    check_encoding(file, "utf-8-sig")
    with file.open(encoding="utf-8-sig", newline="") as opened:
        line = opened.readline()
    names = next(csv.reader([line], delimiter=separator or _separator(line)), [])
    return [name.strip() for name in names]


def _separator(header: str) -> str:
    return max(",;\t", key=header.count)


def read_table(
    file: Path,
    *,
    columns: Sequence[str] = (),
    unique: str | None = None,
    separator: str | None = ",",
    encoding: str = "utf-8-sig",
) -> Iterator[Line]:
    """Rows of a table with a header; names and cells stripped of blanks, any line ending, with or without a BOM.

    `columns` must be there, the cells of `unique` differ from row to row. `separator` None: comma, semicolon or tab,
    whichever the header holds most of. AesError names file and line, also of a row that was cut off.
    """
    check_encoding(file, encoding)
    seen: set[str] = set()
    with file.open(encoding=encoding, newline="") as opened:
        if separator is None:
            separator = _separator(opened.readline())
            opened.seek(0)
        rows = csv.reader(opened, delimiter=separator, strict=True)
        names: list[str] = []
        try:
            for row in rows:
                if not row:
                    continue
                if not names:
                    names = [name.strip() for name in row]
                    _check_columns(file, names, columns)
                    continue
                where = f"{file}, line {rows.line_num}"
                if len(row) != len(names):
                    raise AesError(
                        f"{where} has {len(row)} cells, the header {len(names)}",
                        fix="if the file was cut off, get it again; quote cells that hold the separator",
                    )
                cells = dict(zip(names, map(str.strip, row), strict=True))
                if unique is not None:
                    require_unique(seen, cells[unique], where)
                yield Line(where, cells)
        except csv.Error as error:
            raise AesError(
                f"{file}, line {rows.line_num} is no row of a table: {error}",
                fix="get the file again, or mend the line",
            ) from error
    if not names:
        _check_columns(file, names, columns)


def require_unique(seen: set[str], image: str, where: str) -> None:
    """Note an image. AesError where it was noted before."""
    if image in seen:
        raise AesError(f"{where}: {image} is rated twice", fix="keep one row an image")
    seen.add(image)


def _check_columns(file: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise AesError(f"{file}, line 1 has two columns {twice[0]!r}", fix="rename one of them")
    absent = [name for name in columns if name not in names]
    if absent:
        raise AesError(
            f"{file}, line 1 has no column {absent[0]!r}; it has {', '.join(names) or 'nothing'}",
            fix="check that this is the label file that it ought to be, with its header",
        )


def read_lines(file: Path) -> Iterator[tuple[str, list[str]]]:
    """Lines of a file without a header, split at blanks wherever they stand: where, and the words."""
    check_encoding(file, "utf-8-sig")
    with file.open(encoding="utf-8-sig") as opened:  # universal newlines: CR alone is one as well
        for number, line in enumerate(opened, start=1):
            words = line.split()
            if words:
                yield f"{file}, line {number}", words


def check_encoding(file: Path, encoding: str) -> None:
    """AesError with the first line that is not in this encoding; nothing is held but a block of the file."""
    blocks = 1 << 20
    with file.open("rb") as opened:
        if opened.read(4).startswith((b"\xff\xfe", b"\xfe\xff")):
            raise AesError(f"{file} is UTF-16", fix="save it again as UTF-8")
    try:
        with file.open(encoding=encoding, newline="") as opened:
            while opened.read(blocks):
                pass
    except UnicodeDecodeError as error:
        content = file.read_bytes()
        try:
            content.decode(encoding)
            line = 1
        except UnicodeDecodeError as whole:
            line = content.count(b"\n", 0, whole.start) + 1
        if encoding != "utf-8-sig":
            raise AesError(
                f"{file}, line {line} is no {encoding}", fix="get the file again, or save it as UTF-8"
            ) from error
        other = "GB18030" if _reads_as(content, "gb18030") else "another encoding"
        raise AesError(
            f"{file}, line {line} is not UTF-8; the file reads as {other}",
            fix=f"save it again as UTF-8, e.g. iconv -f {other if other == 'GB18030' else 'LATIN1'} -t UTF-8",
        ) from error


def is_utf8(file: Path) -> bool:
    """Whether a file is UTF-8 text, with or without a BOM."""
    return _reads_as(file.read_bytes(), "utf-8-sig")


def _reads_as(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def parse_number(text: str | None, column: str, where: str) -> float:
    """A finite number, or an AesError that names the place."""
    try:
        value = float(text or "") if "_" not in (text or "") else math.nan  # Python would read 1_0 as ten
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise AesError(f"{where}: {column} is {text!r}, no number", fix="mend or remove the row")
    return value


def parse_count(text: str | None, column: str, where: str) -> int:
    """A whole number of votes, 0 or more."""
    value = parse_number(text, column, where)
    if value < 0 or value != int(value):
        raise AesError(f"{where}: {column} is {text}, no number of votes", fix="mend or remove the row")
    return int(value)


def parse_score(text: str | None, column: str, where: str, *, low: float, high: float) -> float:
    """A mark mapped from the scale's nominal bounds to 0–1, or an AesError where it lies outside of them."""
    value = parse_number(text, column, where)
    if not low <= value <= high:
        raise AesError(
            f"{where}: {column} is {value:g}, outside the scale {low:g}–{high:g}",
            fix="check the scale, or mend the row",
        )
    return (value - low) / (high - low)


def image_path(text: str, where: str) -> str:
    """A picture's path below its folder, with / between parts. AesError where it is empty or leads out of it."""
    name = text.strip()
    if not name or "\0" in name:
        raise AesError(f"{where}: no image is named", fix="mend or remove the row")
    windows = PureWindowsPath(name)
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or windows.drive or ".." in path.parts:
        raise AesError(
            f"{where}: {name} leaves the picture folder", fix="use paths below it, and --images for the folder"
        )
    return str(path)


def check_scale(low: float, high: float) -> None:
    """AesError unless these are a scale's bounds."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise AesError(f"the scale runs from {low} to {high}", fix="pass --scale LOW HIGH with LOW below HIGH")


def parse_std(text: str | None, column: str, where: str, *, low: float, high: float) -> float:
    """A standard deviation of marks, mapped to the 0–1 scale; it cannot be wider than the scale."""
    value = parse_number(text, column, where)
    if not 0 <= value <= high - low:
        raise AesError(
            f"{where}: {column} is {value:g}, no standard deviation on the scale {low:g}–{high:g}", fix="mend the row"
        )
    return value / (high - low)


def mean_and_std(votes: Sequence[float], marks: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of single votes, from the number (or share) that each mark got."""
    total = sum(votes)
    mean = sum(map(mul, votes, marks)) / total
    square = sum(map(mul, map(mul, votes, marks), marks)) / total
    return mean, math.sqrt(max(0.0, square - mean * mean))
