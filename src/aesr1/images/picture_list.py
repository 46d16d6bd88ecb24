"""Paths of any number of pictures in a temporary file, and the shard of them that one machine takes."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from aesr1.errors import AesError


class PictureList:
    """Paths in order, each once, in a temporary SQLite file: their number does not matter to memory.

    It ends with the object. `database`: the table `pictures` with the columns number and path (see `path_key`).
    """

    def __init__(self, paths: Iterable[str | Path]) -> None:
        self.database = sqlite3.connect("")
        self.database.execute("PRAGMA journal_mode = OFF")
        self.database.execute("CREATE TABLE pictures (number INTEGER PRIMARY KEY, path BLOB UNIQUE)")
        self.database.executemany(
            "INSERT OR IGNORE INTO pictures (path) VALUES (?)", ((path_key(str(path)),) for path in paths)
        )

    def __len__(self) -> int:
        (count,) = self.database.execute("SELECT count(*) FROM pictures").fetchone()
        return int(count)

    def __iter__(self) -> Iterator[str]:
        return (path_of(key) for (key,) in self.database.execute("SELECT path FROM pictures ORDER BY number"))


def path_key(path: str) -> bytes:
    """A path as the database has it: names may hold bytes that are no text."""
    return path.encode("utf-8", "surrogatepass")


def path_of(key: bytes) -> str:
    """The path of a key."""
    return key.decode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Shard:
    """Every `count`-th picture of a list, from the one at `index`."""

    index: int
    count: int

    def of(self, paths: Iterable[str]) -> Iterator[str]:
        """Its paths. The shards 0 to count − 1 have each path once."""
        return islice(paths, self.index, None, self.count)


def parse_shard(text: str) -> Shard:
    """The shard of a text i/n. AesError where i is not 0 to n − 1."""
    match = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    shard = Shard(int(match[1]), int(match[2])) if match else None
    if shard is None or shard.index >= shard.count:
        raise AesError(
            f"{text} is not a shard", fix="write i/n with i from 0 to n - 1: --shard 0/4, 1/4, 2/4 and 3/4 are all of 4"
        )
    return shard
