"""Reads text tables (CSV and the like) and the numbers in them; errors name the file and the line."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from aesr1.errors import AesError

SEPARATOR_LINE = re.compile(r"sep=([,;\t])", re.IGNORECASE)
"""The line that Excel reads the separator from."""
THOUSANDS_BY_COMMA = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?")
DECIMAL_COMMA = re.compile(r"[-+]?(\d{1,3}([. '\u00a0\u202f]\d{3})+|\d+),\d+")


class Line(NamedTuple):
    """A row of a table: its file and line for error messages, and its cells by column name."""

    where: str
    cells: dict[str, str]


def header_of(file: Path, *, separator: str | None = ",") -> list[str]:
    """The column names of a table, as `read_table` reads them; empty for an empty file."""
    check_encoding(file, "utf-8-sig")
    separator = separator or separator_of(file)
    with file.open(encoding="utf-8-sig", newline="") as opened:
        line = opened.readline()
        if SEPARATOR_LINE.fullmatch(line.strip("\r\n")):
            line = opened.readline()
    names = next(csv.reader([line], delimiter=separator), [])
    return [name.strip() for name in names]


def separator_of(file: Path) -> str:
    """Comma, semicolon or tab: what Excel's `sep=` line says, else the one that is most frequent in the header."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        line = opened.readline()
    stated = SEPARATOR_LINE.fullmatch(line.strip("\r\n"))
    return stated[1] if stated else max(",;\t", key=line.count)


def plain_number(cell: str, separator: str) -> str:
    """A cell's number with a decimal point and without marks for thousands; other text as it is.

    A comma is decimal where it does not separate cells.
    """
    if separator == ",":
        return cell.replace(",", "") if THOUSANDS_BY_COMMA.fullmatch(cell) else cell
    if not DECIMAL_COMMA.fullmatch(cell):
        return cell
    return re.sub(r"[^\d,+-]", "", cell).replace(",", ".")


def read_table(
    file: Path,
    *,
    columns: Sequence[str] = (),
    unique: str | None = None,
    separator: str | None = ",",
    encoding: str = "utf-8-sig",
) -> Iterator[Line]:
    """Rows of a table with a header. Any line ending and a BOM are accepted; spaces around names and cells are removed.

    The table must have `columns`, and the cells of the column `unique` must all differ. `separator` None: as
    `separator_of` finds. Empty rows are left out. AesError names the file and the line.
    """
    check_encoding(file, encoding)
    seen: set[str] = set()
    with file.open(encoding=encoding, newline="") as opened:
        separator = separator or separator_of(file)
        rows = csv.reader(opened, delimiter=separator, strict=True)
        names: list[str] = []
        try:
            for row in rows:
                if not any(map(str.strip, row)) or (not names and SEPARATOR_LINE.fullmatch(separator.join(row))):
                    continue
                if not names:
                    names = [name.strip() for name in row]
                    check_columns(file, names, columns)
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
                f"{file}, line {rows.line_num} is not a valid table row: {error}",
                fix="get the file again, or correct the line",
            ) from error
    if not names:
        check_columns(file, names, columns)


def require_unique(seen: set[str], image: str, where: str) -> None:
    """Add an image to `seen`. AesError if it is already there."""
    if image in seen:
        raise AesError(f"{where}: {image} is rated twice", fix="keep one row for each image")
    seen.add(image)


def check_columns(file: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    """AesError unless the column names in line 1 are unique and include `columns`."""
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise AesError(f"{file}, line 1 has two columns {twice[0]!r}", fix="rename one of them")
    missing = [name for name in columns if name not in names]
    if missing:
        raise AesError(
            f"{file}, line 1 has no column {missing[0]!r}; it has {', '.join(names) or 'nothing'}",
            fix="check that this is the right label file, and that it has its header",
        )


def read_lines(file: Path) -> Iterator[tuple[str, list[str]]]:
    """The lines of a file without a header: file and line number, and the words between blanks."""
    check_encoding(file, "utf-8-sig")
    with file.open(encoding="utf-8-sig") as opened:  # universal newlines: a CR alone ends a line too
        for number, line in enumerate(opened, start=1):
            words = line.split()
            if words:
                yield f"{file}, line {number}", words


def check_encoding(file: Path, encoding: str) -> None:
    """AesError with the first line that is not in this encoding. The file is read in blocks to save memory."""
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
                f"{file}, line {line} is not {encoding}", fix="get the file again, or save it as UTF-8"
            ) from error
        chinese = _decodes_as(content, "gb18030")
        raise AesError(
            f"{file}, line {line} is not UTF-8; the file is in {'GB18030' if chinese else 'another encoding'}",
            fix=f"save it again as UTF-8, e.g. iconv -f {'GB18030' if chinese else 'LATIN1'} -t UTF-8",
        ) from error


def is_utf8(file: Path) -> bool:
    """Whether a file is UTF-8 text, with or without a BOM."""
    return _decodes_as(file.read_bytes(), "utf-8-sig")


def _decodes_as(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def parse_number(text: str | None, column: str, where: str) -> float:
    """A finite number. AesError names the file and the line."""
    try:
        value = float(text or "") if "_" not in (text or "") else math.nan  # Python reads 1_0 as ten
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise AesError(f"{where}: {column} is {text!r}, not a number", fix="correct or remove the row")
    return value


def parse_count(text: str | None, column: str, where: str) -> int:
    """A whole number of votes, 0 or more."""
    value = parse_number(text, column, where)
    if value < 0 or value != int(value):
        raise AesError(f"{where}: {column} is {text}, not a number of votes", fix="correct or remove the row")
    return int(value)


def parse_score(text: str | None, column: str, where: str, *, low: float, high: float) -> float:
    """A mark, mapped from the scale low–high to 0–1. AesError if it lies outside the scale."""
    value = parse_number(text, column, where)
    if not low <= value <= high:
        raise AesError(
            f"{where}: {column} is {value:g}, outside the scale {low:g}–{high:g}",
            fix="check the scale, or correct the row",
        )
    return (value - low) / (high - low)


def check_scale(low: float, high: float) -> None:
    """AesError unless low and high are finite and low < high."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise AesError(f"the scale runs from {low} to {high}", fix="pass --scale LOW HIGH with LOW below HIGH")


def parse_std(text: str | None, column: str, where: str, *, low: float, high: float) -> float:
    """A standard deviation of marks, mapped to the 0–1 scale. AesError if it is negative or wider than the scale."""
    value = parse_number(text, column, where)
    if not 0 <= value <= high - low:
        raise AesError(
            f"{where}: {column} is {value:g}, not a standard deviation on the scale {low:g}–{high:g}",
            fix="correct the row",
        )
    return value / (high - low)
