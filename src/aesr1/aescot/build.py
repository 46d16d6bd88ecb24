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

from aesr1.aescot.critics import embedded
from aesr1.aescot.filters import refuse
from aesr1.aescot.findings import PHOTOGRAPHS, SCENES, findings
from aesr1.contract import LEVELS, Judgement, level_of, parse_reply, render_reply
from aesr1.errors import AesError
from aesr1.images import open_image
from aesr1.measure import measure
from aesr1.progress import bar
from aesr1.records import Appender, Draft, Rating, Rationale, of_split, read_rows, write_json, write_rows, write_run
from aesr1.tiny.scenes import DOMAIN

CRITIC = "embedded"


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
    """What became of the drafts."""

    kept: dict[str, int]  # by level
    wanted: int  # per level
    refused: dict[str, int]  # drafts by filter
    unreadable: int  # pictures


def build(config: CotConfig) -> CotSummary:
    """Write `raw.jsonl` (every draft, appended), `rationales.jsonl` and `summary.json`. Resumes where it stopped."""
    started = time.time()
    if config.n < len(LEVELS):
        raise AesError(f"n is {config.n}", fix="ask for at least one rationale a level, so 3")
    if (config.output / "rationales.jsonl").exists():
        raise AesError(
            f"{config.output} holds finished rationales", fix="choose another output folder; nothing is overwritten"
        )
    ratings = of_split(read_rows(config.ratings, Rating), config.split, where=config.ratings)
    ledger = config.output / "raw.jsonl"
    drafts = read_rows(ledger, Draft) if ledger.exists() else []
    done = {draft.image for draft in drafts}
    wanted = config.n // len(LEVELS)
    kept = Counter(level_of(draft.score) for draft in drafts if draft.refused is None)
    unreadable = 0
    with (
        Appender(ledger) as raw,
        ProcessPoolExecutor() as workers,
        bar("aescot", total=wanted * len(LEVELS)) as progress,
    ):
        progress.advance(sum(kept.values()))
        for level in LEVELS:
            todo = [
                row for row in _shuffled(ratings, config.seed) if level_of(row.score) == level and row.image not in done
            ]
            while kept[level] < wanted and todo:
                batch, todo = todo[: max(8, wanted - kept[level])], todo[max(8, wanted - kept[level]) :]
                for written in workers.map(partial(write_drafts, config), batch, chunksize=4):
                    if not written:
                        unreadable += 1
                        continue
                    drafts += written
                    raw.append(*written)
                    if written[-1].refused is None:
                        kept[level] += 1
                        progress.advance(1)
    rationales = _chosen(drafts, wanted)
    write_rows(config.output / "rationales.jsonl", rationales)
    refused = Counter(draft.refused.split(":")[0] for draft in drafts if draft.refused)
    summary = CotSummary(dict(Counter(level_of(r.score) for r in rationales)), wanted, dict(refused), unreadable)
    write_json(config.output / "summary.json", summary._asdict())
    write_run(config.output, "cot build", config, started=started)
    return summary


def write_drafts(config: CotConfig, rating: Rating) -> list[Draft]:
    """Drafts for one picture until one is kept or the attempts are spent; none where it cannot be opened."""
    try:
        picture = open_image(rating.image)
    except AesError:
        return []
    seen = findings(measure(picture), thresholds=SCENES if rating.domain == DOMAIN else PHOTOGRAPHS)
    drafts: list[Draft] = []
    for attempt in range(config.attempts):
        rng = np.random.default_rng([config.seed, attempt, *Path(rating.image).name.encode()])
        text = embedded(picture, rating.score, seen, rng)
        reason = refuse(text, score=rating.score, findings=seen)
        drafts.append(Draft(rating.image, rating.score, rating.domain, attempt, text, reason, CRITIC))
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
            assert parse_reply(render_reply(Judgement(draft.score, draft.text))) is not None
            rationale = Rationale(draft.image, draft.score, draft.domain, draft.text, draft.critic)
            by_level[level_of(draft.score)].append(rationale)
    longest = max(map(len, by_level.values()), default=0)
    return [rows[i] for i in range(longest) for rows in by_level.values() if i < len(rows)]
