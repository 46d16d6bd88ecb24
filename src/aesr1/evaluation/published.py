"""The tables of the paper as data."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from aesr1.errors import AesError

PROTOCOL = (
    "The paper reads one reply at temperature 0.6 (`--samples 1`). Its splits are the official test sets of TAD66K, "
    "AVA and PARA, and a tenth of FLICKR-AES and AADB, drawn with a seed that is not published. Another split or "
    "another reading also makes a difference."
)
"""What to know before numbers are compared. Source: arXiv 2509.21871, section 4.1 and appendix C."""


@dataclass(frozen=True)
class PublishedTable:
    """One table of the paper."""

    title: str
    best: str  # the row that the paper proposes
    rows: Mapping[str, Mapping[str, tuple[float, float]]]  # model → data set → PLCC, SRCC


def published_table(number: str) -> PublishedTable:
    """A table of Aes-R1, "1" to "4". AesError on another number."""
    tables = _tables()
    if number not in tables:
        raise AesError(
            f"there is no table {number} of the paper with scores",
            fix="; ".join(f"{name}: {table.title}" for name, table in tables.items()),
        )
    return tables[number]


@cache
def _tables() -> dict[str, PublishedTable]:
    data = tomllib.loads((files("aesr1.evaluation") / "published.toml").read_text(encoding="utf-8"))
    datasets = data.pop("datasets")
    return {
        number: PublishedTable(
            entry["title"],
            entry["best"],
            {
                model: {name: (plcc, srcc) for name, (plcc, srcc) in zip(datasets, pairs, strict=True)}
                for model, pairs in entry["rows"].items()
            },
        )
        for number, entry in data.items()
    }
