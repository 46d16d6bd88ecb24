"""AesCoT: rated pictures in, rationales out that fit the rating, leak nothing and say what is there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aesr1.aescot.critics import Critic, embedded
from aesr1.aescot.filters import refuse
from aesr1.aescot.findings import PHOTOGRAPHS, SCENES, findings
from aesr1.contract import LEVELS, Judgement, level_of, render_reply
from aesr1.errors import AesError
from aesr1.images import open_image
from aesr1.measure import measure
from aesr1.progress import bar
from aesr1.records import (
    Appender,
    Draft,
    Rating,
    Rationale,
    claim,
    of_split,
    read_rows,
    write_json,
    write_rows,
    write_run,
)
from aesr1.tiny.scenes import DOMAIN

FILTERS = ("leak", "align", "fact")


@dataclass(frozen=True)
class CotConfig:
    """How many rationales, from which ratings. Levels are balanced: a third each of bad, fair and good."""

    ratings: Path
    output: Path
    n: int = 3_000  # AesCoT-3K
    split: str = "train"
    attempts: int = 3  # a refused picture is asked again so often
    seed: int = 0


class CotSummary(NamedTuple):
    """What became of the pictures and drafts, by level."""

    wanted: int  # rationales a level
    kept: dict[str, int]
    refused: dict[str, dict[str, int]]  # filter → level → drafts
    unreadable: list[str]  # why pictures could not be opened


def build(config: CotConfig, *, critic: Critic = embedded) -> CotSummary:
    """Write `raw.jsonl` (every draft, appended), `rationales.jsonl` and `summary.json`. Resumes where it stopped."""
    started = time.time()
    if config.n < len(LEVELS) or config.attempts < 1:
        raise AesError(
            f"n is {config.n}, attempts {config.attempts}", fix="ask for 3 rationales and 1 attempt at least"
        )
    target = config.output / "rationales.jsonl"
    if target.exists():
        raise AesError(
            f"{config.output} holds finished rationales", fix="choose another output folder; nothing is overwritten"
        )
    ratings = of_split(read_rows(config.ratings, Rating), config.split, where=config.ratings)
    claim(config.output, config)
    drafts, unreadable = _all_drafts(config, critic, ratings)
    wanted = config.n // len(LEVELS)
    rationales = _chosen(drafts, wanted)
    counts = Counter((draft.refused.split(":")[0], level_of(draft.score)) for draft in drafts if draft.refused)
    summary = CotSummary(
        wanted=wanted,
        kept={level: sum(level_of(row.score) == level for row in rationales) for level in LEVELS},
        refused={name: {level: counts[name, level] for level in LEVELS} for name in FILTERS},
        unreadable=unreadable,
    )
    write_json(config.output / "summary.json", summary._asdict())
    write_run(config.output, "cot build", config, started=started)
    write_rows(target, rationales)
    return summary


def to_markdown(summary: CotSummary) -> str:
    """The table of what was kept and refused, by level."""
    rows = {"kept": summary.kept, **summary.refused}
    lines = [f"| | {' | '.join(LEVELS)} | all |", "|---" * (len(LEVELS) + 2) + "|"]
    for name, by_level in rows.items():
        cells = [str(by_level[level]) for level in LEVELS]
        lines.append(f"| {name} | {' | '.join(cells)} | {sum(by_level.values())} |")
    lines.append(f"\nWanted {summary.wanted} a level; {len(summary.unreadable)} pictures could not be opened.")
    return "\n".join(lines + summary.unreadable[:3])


def _all_drafts(config: CotConfig, critic: Critic, ratings: Sequence[Rating]) -> tuple[list[Draft], list[str]]:
    """Drafts, old and new, until every level has enough or its pictures are spent; and the pictures' errors."""
    ledger = config.output / "raw.jsonl"
    drafts = read_rows(ledger, Draft) if ledger.exists() else []
    done = {draft.image for draft in drafts}
    kept = Counter(level_of(draft.score) for draft in drafts if draft.refused is None)
    wanted = config.n // len(LEVELS)
    unreadable: list[str] = []
    write = partial(write_drafts, config, critic)
    with (
        Appender(ledger) as raw,
        ProcessPoolExecutor() as workers,
        bar("aescot", total=wanted * len(LEVELS)) as progress,
    ):
        progress.advance(sum(min(wanted, kept[level]) for level in LEVELS))
        for level in LEVELS:
            todo = [
                row for row in _shuffled(ratings, config.seed) if level_of(row.score) == level and row.image not in done
            ]
            while kept[level] < wanted and todo:
                size = max(8, wanted - kept[level])
                batch, todo = todo[:size], todo[size:]
                for written in workers.map(write, batch, chunksize=4):
                    if isinstance(written, str):
                        unreadable.append(written)
                        continue
                    drafts += written
                    raw.append(*written)
                    if written[-1].refused is None:
                        kept[level] += 1
                        progress.advance(kept[level] <= wanted)
    return drafts, unreadable


def write_drafts(config: CotConfig, critic: Critic, rating: Rating) -> list[Draft] | str:
    """Drafts for one picture until one is kept or the attempts are spent; or why it could not be opened."""
    try:
        picture = open_image(rating.image)
        measured = measure(picture)
    except AesError as error:
        return error.problem
    seen = findings(measured, thresholds=SCENES if rating.domain == DOMAIN else PHOTOGRAPHS)
    drafts: list[Draft] = []
    for attempt in range(config.attempts):
        rng = np.random.default_rng([config.seed, attempt, *Path(rating.image).name.encode(errors="surrogateescape")])
        text = critic(picture, rating.score, seen, rng)
        reason = refuse(text, score=rating.score, findings=seen)
        drafts.append(Draft(rating.image, rating.score, rating.domain, attempt, text, reason, critic.__name__))
        if reason is None:
            break
    return drafts


def _shuffled(ratings: Sequence[Rating], seed: int) -> list[Rating]:
    order = np.random.default_rng(seed).permutation(len(ratings))
    return [ratings[i] for i in order]


def _chosen(drafts: Sequence[Draft], wanted: int) -> list[Rationale]:
    """The first `wanted` kept drafts of each level, in an order that mixes the levels; each can be read back."""
    by_level: dict[str, list[Rationale]] = {level: [] for level in LEVELS}
    for draft in drafts:
        if draft.refused is None and len(by_level[level_of(draft.score)]) < wanted:
            render_reply(Judgement(draft.score, draft.text))  # raises where the row could not be read back
            rationale = Rationale(draft.image, draft.score, draft.domain, draft.text, draft.critic)
            by_level[level_of(draft.score)].append(rationale)
    longest = max(map(len, by_level.values()), default=0)
    return [rows[i] for i in range(longest) for rows in by_level.values() if i < len(rows)]
