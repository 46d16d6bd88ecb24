"""Divides ratings into train, val and test with a seed; groups of pictures stay together."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aesr1.errors import AesError
from aesr1.json_lines import ratings_file, read_rows, write_rows
from aesr1.outputs import staged_output, write_run
from aesr1.records import SPLITS, Rating


def draw_splits(groups: Sequence[str], shares: Mapping[str, float], *, seed: int = 0) -> list[str]:
    """A split for each row. Rows of one group stay together; the shares are met as closely as whole groups allow.

    The groups are shuffled by the seed, then each goes to the split that is furthest below its share. The order of
    the rows does not change the result.
    """
    if (
        not shares
        or any(name not in SPLITS for name in shares)
        or any(not 0 <= share < math.inf for share in shares.values())
    ):
        raise AesError(f"the shares are {dict(shares)}", fix=f"give {', '.join(SPLITS)} shares of 0 or more")
    total = sum(shares.values())
    if not total > 0:
        raise AesError("all shares are 0", fix="give one split a share above 0")
    sizes = Counter(groups)
    order = sorted(sizes)
    order = [order[i] for i in np.random.default_rng(seed).permutation(len(order))]
    order.sort(key=lambda group: -sizes[group])  # stable sort: large groups first, while they still fit
    wanted = {name: len(groups) * share / total for name, share in shares.items() if share}
    left = dict(wanted)
    chosen: dict[str, str] = {}
    for group in order:
        name = max(left, key=lambda split: (left[split] / wanted[split], wanted[split]))
        chosen[group] = name
        left[name] -= sizes[group]
    return [chosen[group] for group in groups]


@dataclass(frozen=True)
class SplitConfig:
    """The shares of the splits, and which rows stay together."""

    ratings: Path
    output: Path
    shares: tuple[tuple[str, float], ...]  # split → share of the rows that are divided
    keep: tuple[str, ...] = ()  # splits whose rows do not change
    group_by: str | None = None  # regular expression; its first group (or match) in the file name is the group
    seed: int = 0


def split(config: SplitConfig) -> dict[str, int]:
    """Write `ratings.jsonl` with new splits; returns rows by split. AesError if a group would be in two splits."""
    started = time.time()
    for name in config.keep:
        if name not in SPLITS:
            raise AesError(f"{name!r} is not a split", fix=f"use {', '.join(SPLITS)}")
    rows = read_rows(ratings_file(config.ratings), Rating)
    groups = _groups(rows, config)
    kept: dict[str, str] = {}
    for row, group in zip(rows, groups, strict=True):
        if row.split in config.keep and kept.setdefault(group, row.split) != row.split:
            raise AesError(
                f"{group!r} is already in {kept[group]} and in {row.split}, first: {row.image}",
                fix="keep only one of those splits",
            )
    divided = [i for i, row in enumerate(rows) if row.split not in config.keep]
    divided_group = next((i for i in divided if groups[i] in kept), None)
    if divided_group is not None:
        raise AesError(
            f"{rows[divided_group].image} belongs to {groups[divided_group]!r}, which is kept in "
            f"{kept[groups[divided_group]]}",
            fix="remove those rows, or do not keep that split",
        )
    if not divided:
        raise AesError(f"{config.ratings} holds no rows to divide", fix="keep fewer splits")
    drawn = draw_splits([groups[i] for i in divided], dict(config.shares), seed=config.seed)
    chosen = dict(zip(divided, drawn, strict=True))
    written = [replace(row, split=chosen.get(i, row.split)) for i, row in enumerate(rows)]
    counts = dict(Counter(row.split for row in written))
    with staged_output(config.output, "ratings.jsonl", "run.json") as part:
        write_rows(part / "ratings.jsonl", written)
        write_run(part, "ratings split", config, started=started, rows=counts, groups=len(set(groups)))
    return counts


def _groups(rows: Sequence[Rating], config: SplitConfig) -> list[str]:
    """The group of each row: from the pattern, else from the row, else the image itself."""
    try:
        pattern = re.compile(config.group_by) if config.group_by else None
    except re.error as error:
        raise AesError(f"--group-by is not a regular expression: {error}", fix=r"example: '([a-z]+)-\d+'") from error
    groups = []
    seen: set[str] = set()
    for row in rows:
        if row.image in seen:
            raise AesError(f"{row.image} has two rows", fix="keep one row for each image: it could end in two splits")
        seen.add(row.image)
        match = pattern.search(Path(row.image).name) if pattern else None
        if pattern and match is None:
            raise AesError(f"--group-by matches nothing in {Path(row.image).name}", fix="correct the pattern")
        if match is not None:
            name = match[1] if match.re.groups else match[0]
            if not name:
                raise AesError(f"--group-by gives an empty group in {Path(row.image).name}", fix="correct the pattern")
            groups.append(name)
        else:
            groups.append(row.group or row.image)
    return groups
