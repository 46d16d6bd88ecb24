"""`aesr1 pick`: the best of similar pictures, and what to keep, in lists and on a page. No picture is touched."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aesr1.app.pick_page import write_page
from aesr1.app.predictions_table import harmless
from aesr1.app.score import ScoreConfig, score_files
from aesr1.app.score_table import best_first
from aesr1.app.similar_pictures import see_pictures, similar_groups
from aesr1.app.xmp_sidecar import REJECTED, rating_of
from aesr1.errors import AesError
from aesr1.images.prefetch import prefetch_pool
from aesr1.outputs import replaced_file
from aesr1.records import Prediction

if TYPE_CHECKING:
    from aesr1.model.predict import PredictSettings

BUCKETS = ("keep", "maybe", "drop")
ROWS = "scores.jsonl"
AS_GOOD = 0.03
"""A picture whose score is so near to the best of its group is not dropped: the model orders near ones badly."""


@dataclass(frozen=True)
class PickConfig:
    """What to choose from, and how strictly."""

    inputs: tuple[str, ...]  # files, folders, globs
    output: Path
    model: str | None = None
    keep_stars: int = 4  # from so many stars a picture is kept
    drop_stars: int = 2  # up to so many it is dropped
    seconds: float = 2.0  # between two pictures of a burst
    max_pixels: int | None = None
    settings: PredictSettings | None = None
    device: str | None = None
    reference: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.drop_stars < self.keep_stars <= 6 or self.seconds < 0:
            raise AesError(
                f"keep from {self.keep_stars} stars, drop up to {self.drop_stars}, bursts of {self.seconds:g} s",
                fix="drop fewer stars than you keep (0: drop none, 6: keep none); seconds begin at 0",
            )


class Pick(NamedTuple):
    """What is proposed for a picture."""

    row: Prediction
    bucket: str
    group: int  # its number, from 1; pictures with the same number belong together
    size: int  # of the group
    is_best: bool  # of its group
    reason: str


class Picked(NamedTuple):
    """All proposals."""

    picks: Sequence[Pick]

    @property
    def counts(self) -> dict[str, int]:
        """How many pictures are in each bucket."""
        return {name: sum(pick.bucket == name for pick in self.picks) for name in BUCKETS}

    @property
    def groups(self) -> list[list[Pick]]:
        """The groups of several pictures, each best first."""
        found: dict[int, list[Pick]] = {}
        for pick in self.picks:
            if pick.size > 1:
                found.setdefault(pick.group, []).append(pick)
        return list(found.values())


def pick_files(config: PickConfig) -> Picked:
    """Score the pictures (resumed), group them, and write keep.txt, maybe.txt, drop.txt, picks.csv and picks.html."""
    score = ScoreConfig(
        config.inputs,
        config.model,
        config.output / ROWS,
        config.max_pixels,
        config.settings,
        config.device,
        config.reference,
    )
    rows = list(score_files(score))
    with prefetch_pool(len(rows)) as pool:
        groups = similar_groups(see_pictures([row.image for row in rows], pool), seconds=config.seconds)
        people = {row.image: stars for row in rows if (stars := rating_of(row.image))}  # 0 says nothing
        picked = Picked(choose(rows, groups, config, people=people))
        _write_lists(picked, config.output)
        write_page(config.output / "picks.html", picked, pool=pool)
    return picked


def choose(
    rows: Sequence[Prediction], groups: Sequence[Sequence[int]], config: PickConfig, *, people: Mapping[str, int]
) -> list[Pick]:
    """A proposal for each picture, in groups, each best first. `people`: stars that a person gave, by picture.

    A person's stars decide alone. Else the best of a group is kept, asked about or dropped by its stars; the others
    are dropped, or asked about where they are as good as the best. A picture without a score is asked about.
    """
    picks = []
    for number, group in enumerate(groups, start=1):
        ordered = best_first([rows[index] for index in group])
        best = ordered[0]
        for row in ordered:
            bucket, reason = _bucket(row, best, ordered, config, people.get(row.image))
            picks.append(Pick(row, bucket, number, len(ordered), row is best, reason))
    return picks


def _bucket(
    row: Prediction, best: Prediction, group: Sequence[Prediction], config: PickConfig, person: int | None
) -> tuple[str, str]:
    if person is not None:
        text = "you rejected it" if person == REJECTED else f"you gave it {person} {'star' if person == 1 else 'stars'}"
        return _by_stars(person, config), text
    if row.score is None or best.score is None or row.stars is None:
        return "maybe", f"no score: {row.error or 'the reply could not be read'}"
    if row is best:
        scored = [each.score for each in group[1:] if each.score is not None]
        alone = f"the best of {len(group)}: {row.score:.2f}, the next {scored[0]:.2f}" if scored else f"{row.score:.2f}"
        return _by_stars(row.stars, config), alone
    behind = f"{row.score:.2f}, the best of {len(group)} has {best.score:.2f}"
    if best.score - row.score <= AS_GOOD:
        return "drop" if _by_stars(row.stars, config) == "drop" else "maybe", f"as good: {behind}"
    return "drop", f"behind: {behind}"


def _by_stars(stars: int, config: PickConfig) -> str:
    return "keep" if stars >= config.keep_stars else "drop" if stars <= config.drop_stars else "maybe"


def _write_lists(picked: Picked, output: Path) -> None:
    for name in BUCKETS:
        with replaced_file(output / f"{name}.txt") as part:
            lines = [os.fsencode(pick.row.image) + b"\n" for pick in picked.picks if pick.bucket == name]
            part.write_bytes(b"".join(lines))
    with (
        replaced_file(output / "picks.csv") as part,
        part.open("w", encoding="utf-8-sig", errors="backslashreplace", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(["image", "bucket", "group", "of", "best", "score", "stars", "percentile", "why", "reasoning"])
        for row, bucket, group, size, is_best, reason in picked.picks:
            cells = [
                row.image,
                bucket,
                group,
                size,
                is_best,
                row.score,
                row.stars,
                row.percentile,
                reason,
                row.reasoning,
            ]
            table.writerow(map(harmless, cells))
