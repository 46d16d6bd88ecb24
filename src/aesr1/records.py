"""The rows that stages exchange, and JSON Lines files of them: stages meet in files alone.

A torn last line (a process killed while it wrote) is left out on reading and cut off before appending.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

from aesr1 import __version__
from aesr1.contract import VERSION
from aesr1.errors import AesError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Rating:
    """What people said of one image. `image` is absolute, or relative to the file that holds the row."""

    image: str
    score: float  # mean opinion, 0–1
    domain: str  # the data set; images of two domains are never ranked against each other
    split: str  # train, val or test
    spread: float | None = None  # standard deviation of single votes, on the 0–1 scale
    raters: int | None = None
    votes: tuple[int, ...] | None = None  # how many chose each mark, lowest first


@dataclass(frozen=True)
class Draft:
    """One attempt at a rationale, kept or refused: AesCoT's ledger."""

    image: str
    score: float
    domain: str
    attempt: int
    text: str
    refused: str | None  # "leak: …", "align: …" or "fact: …"
    critic: str
    contract: str = VERSION


@dataclass(frozen=True)
class Rationale:
    """A critique that fits an image's human score (AesCoT)."""

    image: str
    score: float
    domain: str
    reasoning: str
    critic: str  # who wrote it
    contract: str = VERSION


@dataclass(frozen=True)
class Prediction:
    """What a model said of one image. `score` is None where it could not be had; then `error` says why."""

    image: str
    score: float | None  # 0–1
    spread: float | None  # standard deviation of the score's distribution, 0–1
    readable: bool  # the reply kept the contract
    reasoning: str | None
    reply: str  # raw
    model: str
    revision: str
    error: str | None = None
    contract: str = VERSION
    aesr1: str = __version__


Record = Rating | Draft | Rationale | Prediction
Row = TypeVar("Row", Rating, Draft, Rationale, Prediction)


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """Every row of a JSON Lines file, image paths made absolute. AesError names file and line of what is wrong."""
    rows = []
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            values = json.loads(line)
            if values.get("votes") is not None:
                values["votes"] = tuple(values["votes"])
            row = kind(**values)
        except (ValueError, TypeError, AttributeError) as error:
            wanted = ", ".join(field.name for field in fields(kind))
            raise AesError(
                f"{path}, line {number} is no {kind.__name__.lower()}: {error}",
                fix=f"each line must be a JSON object with the keys {wanted}; make the file again or delete the line",
            ) from error
        rows.append(kind(**{**values, "image": str(path.parent.absolute() / row.image)}))
    return rows


def _whole_lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise AesError(f"{path} does not exist", fix="check the path; each stage prints the file that it wrote")
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n") and line.strip():
                yield line


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a file whole: aside, then renamed, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(path.suffix + ".part")
    with aside.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(_line(row))
    aside.replace(path)


def _line(row: Record) -> str:
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


class Appender:
    """Rows appended one by one and on disk before the call returns: `kill -9` loses at most one row."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(path)
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def __enter__(self) -> Appender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, *rows: Record) -> None:
        """Write rows and sync them."""
        self._file.write("".join(_line(row) for row in rows))
        self._file.flush()
        os.fsync(self._file.fileno())


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end != len(content):
            file.truncate(end)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value: aside, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(path.suffix + ".part")
    aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.replace(path)


def write_run(folder: Path, stage: str, config: Any, *, started: float, **results: Any) -> None:
    """`run.json` beside an output: what made it, with which settings, when, how long it took."""
    settings = asdict(config) if hasattr(config, "__dataclass_fields__") else config
    write_json(
        folder / "run.json",
        {
            "stage": stage,
            "aesr1": __version__,
            "contract": VERSION,
            "config": json.loads(json.dumps(settings, default=str)),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "seconds": round(time.time() - started, 1),
            **results,
        },
    )


def of_split(ratings: list[Rating], split: str, *, where: Path) -> list[Rating]:
    """The ratings of one split. AesError where there are none."""
    chosen = [rating for rating in ratings if rating.split == split]
    if not chosen:
        have = sorted({rating.split for rating in ratings})
        raise AesError(
            f"{where} holds no ratings of split {split!r}; it has {', '.join(have) or 'no rows at all'}",
            fix="choose one of those, or import the ratings again with a split column",
        )
    return chosen
