"""Reading and writing rows as JSON Lines.

A torn last line (a process was killed while writing) is ignored when reading and cut off before appending. A complete
last line without a line break counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

from filelock import FileLock, Timeout

from aesr1.contract import check_version
from aesr1.errors import AesError
from aesr1.records import Draft, Prediction, Rating, Rationale, Record, SampledReply

TAIL_BLOCK = 2**16
"""The end of a file is read in blocks of so many bytes."""
RENAMED_FIELDS: dict[type, dict[str, str]] = {Rating: {"spread": "rater_std"}, Prediction: {"spread": "score_std"}}
"""Names that fields had in earlier versions, by kind of row."""

KINDS: dict[type, tuple[set[str], str]] = {
    Draft: ({"attempt", "text"}, "aesr1 cot filter and cot show"),
    Rationale: ({"reasoning", "critic"}, "aesr1 sft"),
    Prediction: ({"decoding", "reply"}, "aesr1 report"),
    SampledReply: ({"step", "reply"}, "aesr1 curves"),
    Rating: ({"domain", "split"}, "aesr1 eval, cot build and rapo"),
}
"""Each kind of row: keys that only it has, and the commands that read it."""
MADE_BY: dict[type, str] = {
    Rating: "a ratings.jsonl, which aesr1 ratings import writes",
    Rationale: "a rationales.jsonl, which aesr1 cot build writes",
    Prediction: "a predictions.jsonl, which aesr1 score -o writes",
}

Row = TypeVar("Row", Rating, Draft, Rationale, Prediction, SampledReply)


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """All rows of a JSON Lines file, with absolute image paths. AesError names file and line of an error."""
    return list(iterate_rows(path, kind))


def iterate_rows(path: Path, kind: type[Row]) -> Iterator[Row]:
    """As `read_rows`, one row at a time."""
    return (row for _, row in rows_with_offsets(path, kind))


def row_at(path: Path, offset: int, kind: type[Row]) -> Row:
    """The row that begins at this byte of a file."""
    with path.open("rb") as file:
        file.seek(offset)
        return _row(file.readline().decode(), kind, str(path.parent.absolute()))


def _row(line: str, kind: type[Row], folder: str) -> Row:
    values = with_current_names(json.loads(line), kind)
    if values.get("votes") is not None:
        values["votes"] = tuple(values["votes"])
    return kind(**{**values, "image": os.path.join(folder, values["image"])})  # noqa: PTH118  # ten times faster


def rows_with_offsets(path: Path, kind: type[Row]) -> Iterator[tuple[int, Row]]:
    """As `iterate_rows`, each with the byte of the file at which it begins."""
    folder = str(path.parent.absolute())
    for number, offset, line in _whole_lines(path):
        try:
            row = _row(line, kind, folder)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            if number == 1 and (other := _other_kind(line, kind)):
                raise AesError(f"{path} {other[0]}, not {kind.__name__.lower()}s", fix=other[1]) from error
            keys = ", ".join(field.name for field in fields(kind))
            raise AesError(
                f"{path}, line {number} is not a {kind.__name__.lower()}: {error}",
                fix=f"each line must be a JSON object with the keys {keys}; make the file again or delete the line",
            ) from error
        if isinstance(row, Draft | Rationale):
            check_version(row.contract, where=f"{path}, line {number},")
        yield offset, row


def _other_kind(line: str, wanted: type) -> tuple[str, str] | None:
    """What a file of another kind holds, by its first line, and the command for it."""
    try:
        keys = set(json.loads(line))
    except (ValueError, TypeError):
        if line.count(",") + line.count(";") + line.count("\t") and "{" not in line:
            return "is a table", "make ratings of it first: aesr1 ratings import csv TABLE --scale LOW HIGH -o FOLDER"
        return None
    for kind, (mark, commands) in KINDS.items():
        if kind is not wanted and mark <= keys:
            fix = f"it is for {commands}" + (f"; pass {MADE_BY[wanted]}" if wanted in MADE_BY else "")
            return f"holds {kind.__name__.lower()}s", fix
    return None


def with_current_names(values: dict[str, Any], kind: type) -> dict[str, Any]:
    """A row's values under today's field names: files of earlier versions stay readable."""
    renamed = RENAMED_FIELDS.get(kind, {})
    return {renamed.get(name, name): value for name, value in values.items()}


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file of other rows, such as a run's figures. AesError names a bad line."""
    values = []
    for number, _, line in _whole_lines(path):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise AesError(f"{path}, line {number} is not JSON: {error}", fix="delete the line") from error
        if not isinstance(value, dict):
            raise AesError(f"{path}, line {number} is not a JSON object", fix="delete the line")
        values.append(value)
    return values


def _whole_lines(path: Path) -> Iterator[tuple[int, int, str]]:
    """Number, offset in bytes and text of the non-blank lines, without a torn last line."""
    if not path.is_file():
        raise AesError(f"{path} does not exist", fix="check the path; each stage prints the file that it wrote")
    try:
        with path.open("rb") as file:
            offset = 0
            for number, raw in enumerate(file, start=1):
                line = raw.decode()
                if line.strip() and (line.endswith("\n") or _is_json(line)):
                    yield number, offset, line
                offset += len(raw)
    except UnicodeDecodeError as error:
        raise AesError(f"{path} is not UTF-8 text", fix="pass a JSON Lines file that aesr1 wrote") from error


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def write_rows(path: Path, rows: Iterable[Record]) -> None:
    """Write a file under a temporary name, then rename it, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(path.suffix + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(_line(row))
        file.flush()
        os.fsync(file.fileno())  # else a crash of the machine could leave an empty file under the final name
    temporary.replace(path)


def _line(row: Record) -> str:
    return json.dumps(vars(row)) + "\n"


class Appender:
    """The only writer of a file of rows. Each row is on disk before `append` returns: `kill -9` loses at most one.

    Rows that are to be completed are read inside the block, when no other run can change them. The lock is a file
    beside, because `rewrite` replaces the file itself; it ends with the process. AesError where another run has it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), blocking=False)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise AesError(f"another run is writing {path}", fix="wait for it, or choose another output") from error
        try:
            _cut_torn_line(path)
            self._file: IO[str] = path.open("a", encoding="utf-8")
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Appender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.release()

    def rewrite(self, rows: Iterable[Record]) -> None:
        """Replace all rows of the file."""
        self._file.close()
        try:
            write_rows(self.path, rows)
        finally:
            self._file = self.path.open("a", encoding="utf-8")

    def append(self, *rows: Record) -> int:
        """Write rows and sync them. Returns the byte of the file at which the first begins."""
        offset = self._file.tell()
        self._file.write("".join(_line(row) for row in rows))
        self._file.flush()
        os.fsync(self._file.fileno())
        return offset


def _cut_torn_line(path: Path) -> None:
    """Make a file end in a line break: cut a torn row, keep a complete one. A file of another type is not changed."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        tail = b""
        while end and b"\n" not in tail:
            start = max(0, end - TAIL_BLOCK)
            file.seek(start)
            tail = file.read(end - start) + tail
            end = start
        end += tail.rfind(b"\n") + 1
        tail = tail[tail.rfind(b"\n") + 1 :]
        file.seek(0, os.SEEK_END)
        if not tail:
            return
        if not tail.startswith(b"{"):
            raise AesError(f"{path} is not a file of rows", fix="choose another file; this one is not changed")
        if _is_json(tail.decode("utf-8", errors="replace")):
            file.write(b"\n")
        else:
            file.truncate(end)


def ratings_file(path: Path) -> Path:
    """The ratings file of a path: itself, or ratings.jsonl in that folder."""
    return path / "ratings.jsonl" if path.is_dir() else path
