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
from aesr1.outputs import staged_output, write_run
from aesr1.records import SPLITS, Rating, ratings_file, read_rows, write_rows


def draw_splits(groups: Sequence[str], shares: Mapping[str, float], *, seed: int = 0) -> list[str]:
    """A split for each row. Rows of one group stay together; the shares are met as well as whole groups allow.

    Groups are shuffled by the seed, then each goes to the split that is furthest behind its share. The order of the
    rows does not matter.
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
    order.sort(key=lambda group: -sizes[group])  # stable: large groups first, while there is room for them
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
    """The shares, and what must not be divided."""

    ratings: Path
    output: Path
    shares: tuple[tuple[str, float], ...]  # split → share, of the rows that are divided
    keep: tuple[str, ...] = ()  # splits whose rows stay as they are
    group_by: str | None = None  # pattern whose first group (or whole match) in the file name names the group
    seed: int = 0


def split(config: SplitConfig) -> dict[str, int]:
    """Write ratings.jsonl with new splits; returns rows by split.

    AesError where an image or group would be in two splits.
    """
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
                f"{group!r} is in {kept[group]} and in {row.split} already, {row.image} for one",
                fix="keep only one of those splits",
            )
    divided = [i for i, row in enumerate(rows) if row.split not in config.keep]
    torn = next((i for i in divided if groups[i] in kept), None)
    if torn is not None:
        raise AesError(
            f"{rows[torn].image} belongs to {groups[torn]!r}, which is kept in {kept[groups[torn]]}",
            fix="take those rows out, or do not keep that split",
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
    """Each row's group: by the pattern, else the row's own, else the image alone."""
    try:
        pattern = re.compile(config.group_by) if config.group_by else None
    except re.error as error:
        raise AesError(f"--group-by is not a pattern: {error}", fix=r"give one as in '([a-z]+)-\d+'") from error
    found = []
    seen: set[str] = set()
    for row in rows:
        if row.image in seen:
            raise AesError(f"{row.image} has two rows", fix="keep one row an image: it could end in two splits")
        seen.add(row.image)
        match = pattern.search(Path(row.image).name) if pattern else None
        if pattern and match is None:
            raise AesError(f"--group-by matches nothing in {Path(row.image).name}", fix="correct the pattern")
        if match is not None:
            named = match[1] if match.re.groups else match[0]
            if not named:
                raise AesError(f"--group-by names no group in {Path(row.image).name}", fix="correct the pattern")
            found.append(named)
        else:
            found.append(row.group or row.image)
    return found
