"""Mixes one training set from several, by weight. The paper's is AVA, TAD66K, FLICKR-AES 2:2:1."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aesr1.contract import LEVELS, level_of
from aesr1.errors import AesError
from aesr1.json_lines import iterate_rows, ratings_file, write_rows
from aesr1.outputs import staged_output, write_run
from aesr1.records import SPLITS, Rating


@dataclass(frozen=True)
class MixConfig:
    """Which data sets to mix, their weights, and the number of rows."""

    sources: tuple[tuple[Path, float], ...]  # ratings.jsonl or its folder, and its weight
    output: Path
    n: int
    split: str = "train"
    val: int = 0  # additional rows of split val, by the same weights
    balance: tuple[str, ...] = ()  # levels; each set gives the same number of rows of each level
    seed: int = 0


class Mixed(NamedTuple):
    """The file, and its number of rows by data set and split."""

    ratings: Path
    rows: dict[str, dict[str, int]]


def parse_sources(texts: Sequence[str]) -> tuple[tuple[Path, float], ...]:
    """`PATH:WEIGHT` or `PATH` (weight 1) from the command line; PATH is a ratings.jsonl or its folder."""
    sources = []
    for text in texts:
        name, colon, weight = text.rpartition(":")
        try:
            parsed = float(weight) if colon else 1.0
        except ValueError:
            name, parsed = text, 1.0
        if not 0 < parsed < float("inf"):
            raise AesError(f"the weight of {text} is {weight}", fix="give a weight above 0, as in ava:2")
        path = Path(name if colon and name else text)
        sources.append((ratings_file(path), parsed))
    return tuple(sources)


def mix(config: MixConfig) -> Mixed:
    """Write `ratings.jsonl` with the rows in random order. AesError if a set has too few rows."""
    started = time.time()
    if any(level not in LEVELS for level in config.balance) or len(set(config.balance)) < len(config.balance):
        raise AesError(f"{','.join(config.balance)} are not levels", fix=f"use {', '.join(LEVELS)}, each once")
    if config.split not in SPLITS:
        raise AesError(f"{config.split!r} is not a split", fix=f"use {', '.join(SPLITS)}")
    if len({path.resolve() for path, _ in config.sources}) < len(config.sources):
        raise AesError("a set is named twice", fix="name each set once, with its weight")
    rng = np.random.default_rng(config.seed)
    weights = [weight for _, weight in config.sources]
    if config.split == "val" and config.val:
        raise AesError("val is drawn twice", fix="leave out --val if --split is val")
    counts_by_split = {"val": apportion(config.val, weights)} | {config.split: apportion(config.n, weights)}
    chosen: list[Rating] = []
    for position, (path, _) in enumerate(config.sources):
        rows = list(iterate_rows(path, Rating))
        for split, shares in counts_by_split.items():
            if not shares[position] and any(shares):
                raise AesError(f"{path} would give none of the {split} rows", fix="raise --n or its weight")
            if shares[position]:
                available = [row for row in rows if row.split == split]
                chosen += _sample_levels(available, shares[position], config.balance, rng, f"{path}, split {split}")
    counts: dict[str, dict[str, int]] = {}
    seen: set[str] = set()
    for row in chosen:
        if row.image in seen:
            raise AesError(f"{row.image} was drawn from two sets", fix="mix only one of the sets that hold it")
        seen.add(row.image)
        by_split = counts.setdefault(row.domain, {})
        by_split[row.split] = by_split.get(row.split, 0) + 1
    with staged_output(config.output, "ratings.jsonl", "run.json") as part:
        write_rows(part / "ratings.jsonl", [chosen[i] for i in rng.permutation(len(chosen))])
        write_run(part, "ratings mix", config, started=started, rows=counts)
    return Mixed(config.output / "ratings.jsonl", counts)


def apportion(n: int, weights: Sequence[float]) -> list[int]:
    """Divide `n` by weight into whole numbers that sum to `n`: the largest remainders are rounded up."""
    exact = [weight * n / sum(weights) for weight in weights]
    parts = [int(share) for share in exact]
    for position in sorted(range(len(parts)), key=lambda i: parts[i] - exact[i])[: n - sum(parts)]:
        parts[position] += 1
    return parts


def _sample_levels(
    rows: Sequence[Rating], n: int, balance: Sequence[str], rng: np.random.Generator, where: str
) -> list[Rating]:
    """`n` of the rows without repetition; with `balance`, the same number for each of its levels."""
    if not balance:
        return _sample(rows, n, rng, where)
    chosen: list[Rating] = []
    for level, share in zip(balance, apportion(n, [1.0] * len(balance)), strict=True):
        chosen += _sample([row for row in rows if level_of(row.score) == level], share, rng, f"{where}, level {level}")
    return chosen


def _sample(rows: Sequence[Rating], n: int, rng: np.random.Generator, where: str) -> list[Rating]:
    if len(rows) < n:
        raise AesError(f"{where} has {len(rows):,} rows, {n:,} are needed", fix="lower --n or its weight")
    return [rows[i] for i in sorted(rng.choice(len(rows), n, replace=False))]
