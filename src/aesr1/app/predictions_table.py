"""Predictions as a table in a file, CSV for spreadsheets or parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import Any

from aesr1.contract import level_of
from aesr1.errors import AesError, install
from aesr1.outputs import replaced_file
from aesr1.records import Prediction

TABLES = (".csv", ".parquet")
FIRST = ("image", "score", "score_std", "score_10", "stars", "percentile", "reference", "level", "reasoning", "error")
KINDS = {"level": "string"} | {
    field.name: {"str": "string", "bool": "bool", "int": "int64", "float": "float64"}[str(field.type).split(" |")[0]]
    for field in fields(Prediction)
}
"""The columns, and what a parquet file says of their values."""
COLUMNS = (*FIRST, *(name for name in KINDS if name not in FIRST))
ROW_GROUP = 10_000
"""Rows of a parquet file that are in memory at a time."""


def rows_file(output: Path) -> Path:
    """The JSON Lines file that the rows of an output are appended to. AesError for an unknown kind of file."""
    if output.suffix in TABLES:
        return output.with_suffix(".jsonl")
    if output.suffix not in ("", ".jsonl"):
        raise AesError(f"{output} is of no kind that is written here", fix="name it .jsonl, .csv or .parquet")
    return output


def write_table(rows: Iterable[Prediction], output: Path) -> None:
    """Write a .csv or .parquet with a row for each picture, as they come. AesError where pyarrow is missing."""
    cells = ({"level": level_of(row.score) if row.score is not None else None, **asdict(row)} for row in rows)
    with replaced_file(output) as part:
        if output.suffix == ".csv":
            with part.open("w", encoding="utf-8-sig", errors="backslashreplace", newline="") as file:
                table = csv.DictWriter(file, COLUMNS)
                table.writeheader()
                table.writerows({name: harmless(cell) for name, cell in row.items()} for row in cells)
            return
        _write_parquet(cells, part)


def _write_parquet(cells: Iterator[dict[str, Any]], path: Path) -> None:
    try:
        from pyarrow import Table, schema
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise AesError("a parquet file needs pyarrow", fix=install("data")) from error
    kinds = schema([(name, KINDS[name]) for name in COLUMNS])
    with ParquetWriter(path, kinds) as file:
        while group := list(islice(cells, ROW_GROUP)):
            columns = {name: [_text(row[name]) for row in group] for name in COLUMNS}
            file.write_table(Table.from_pydict(columns, kinds))


def harmless(cell: object) -> object:
    """The cell; a text that a spreadsheet would run as a formula gets a quote in front."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _text(cell: object) -> object:
    """Parquet holds UTF-8 alone; names may hold other bytes."""
    return cell.encode("utf-8", "backslashreplace").decode() if isinstance(cell, str) else cell
