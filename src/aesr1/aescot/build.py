"""AesCoT: rated pictures in, rationales out that fit the rating, leak nothing and say what is there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from aesr1.aescot.choose import RESULTS, CotSummary, choose, sift, summarise, write_choice
from aesr1.aescot.critics import Critic, embedded
from aesr1.aescot.filters import EMBEDDED, FilterSettings, refuse
from aesr1.aescot.findings import see
from aesr1.aescot.teacher import Plan, Teacher, teach, tokens_of_a_request
from aesr1.contract import LEVELS, level_of
from aesr1.errors import AesError
from aesr1.folders import claim, write_run
from aesr1.images import open_image
from aesr1.progress import bar
from aesr1.records import Appender, Draft, Rating, of_split, read_rows


@dataclass(frozen=True)
class CotConfig:
    """How many rationales, from which ratings, by whom. Levels are balanced: a third each of bad, fair and good."""

    ratings: Path
    output: Path
    n: int = 3_000  # AesCoT-3K
    split: str = "train"
    attempts: int = 3  # a refused picture is asked again so often
    seed: int = 0
    filters: FilterSettings = EMBEDDED
    teacher: Teacher | None = None  # default: the embedded critic


@dataclass(frozen=True)
class _Bound:
    """What a build must not change half-way. Speed, price and address may."""

    ratings: Path
    n: int
    split: str
    attempts: int
    seed: int
    filters: FilterSettings
    critic: str
    judges: tuple[str, ...] = field(default=())


def build(config: CotConfig, *, critic: Critic = embedded) -> CotSummary:
    """Write `raw.jsonl` (every draft, appended), then the results. Resumes where it stopped."""
    started = time.time()
    if config.n < len(LEVELS) or config.attempts < 1:
        raise AesError(
            f"n is {config.n}, attempts {config.attempts}", fix="ask for 3 rationales and 1 attempt at least"
        )
    if (config.output / RESULTS[0]).exists():
        raise AesError(
            f"{config.output} holds finished rationales", fix="choose another output folder; nothing is overwritten"
        )
    ratings = of_split(read_rows(config.ratings, Rating), config.split, where=config.ratings)
    claim(config.output, bound(config, critic))
    ledger = config.output / "raw.jsonl"
    drafts = read_rows(ledger, Draft) if ledger.exists() else []
    wanted = config.n // len(LEVELS)
    with Appender(ledger) as raw:
        if config.teacher is None:
            unreadable, stopped = _write_all(config, critic, ratings, drafts, raw), None
        else:
            unreadable, stopped = _teach_all(config, config.teacher, ratings, drafts, raw)
    choice = choose(drafts, wanted, config.filters)
    summary = summarise(drafts, choice, wanted, unreadable=unreadable, stopped=stopped)
    if stopped is None:  # else the same command is to go on
        write_choice(config.output, choice, summary)
        write_run(config.output, "cot build", config, started=started)
    return summary


def _teach_all(
    config: CotConfig, teacher: Teacher, ratings: Sequence[Rating], drafts: list[Draft], raw: Appender
) -> tuple[list[str], str | None]:
    """Ask the teacher, and again for as many as the filters over all texts take away while there are pictures."""
    plan = Plan(config.n // len(LEVELS), config.attempts, config.filters, teacher)
    unreadable: list[str] = []
    while True:
        asked = teach(plan, shuffled(ratings, config.seed), drafts, raw)
        unreadable += asked.unreadable
        own = {(draft.image, draft.attempt) for draft in drafts if draft.refused is not None}
        _, refused = sift(drafts, config.filters)
        taken = Counter(level_of(draft.score) for draft in refused if (draft.image, draft.attempt) not in own)
        if asked.stopped or taken == plan.taken:
            return list(dict.fromkeys(unreadable)), asked.stopped
        plan = replace(plan, taken=taken)


def bound(config: CotConfig, critic: Critic = embedded) -> _Bound:
    """The settings that a folder is bound to."""
    teacher = config.teacher
    name = critic.__name__ if teacher is None else teacher.endpoint.model
    judges = teacher.judges if teacher else ()
    c = config
    return _Bound(c.ratings, c.n, c.split, c.attempts, c.seed, c.filters, name, judges)


def estimate(config: CotConfig) -> str:
    """What a build with a teacher would ask at most and at least, and what that may cost. Nobody is asked."""
    teacher = config.teacher
    if teacher is None:
        raise AesError("there is no teacher to ask", fix="pass --teacher URL")
    ratings = of_split(read_rows(config.ratings, Rating), config.split, where=config.ratings)
    wanted = config.n // len(LEVELS)
    there = Counter(level_of(row.score) for row in ratings)
    lines = [f"{level}: {there[level]:,} pictures for {wanted:,} rationales" for level in LEVELS]
    least = sum(min(wanted, there[level]) for level in LEVELS)
    tokens_in, tokens_out = tokens_of_a_request(teacher)
    for name, requests in (("if every first draft is kept", least), ("if every second one is refused", 2 * least)):
        cost = teacher.cost(requests * tokens_in, requests * tokens_out)
        tokens = f"{requests * tokens_in:,} tokens in, {requests * tokens_out:,} out"
        lines.append(f"{name}: {requests:,} drafts, {tokens}, {cost:.2f}")
    lines.append("Tokens are guessed: a picture as one for 28 × 28 pixels, an answer as 200; prices as given.")
    return "\n".join(lines)


def _write_all(
    config: CotConfig, critic: Critic, ratings: Sequence[Rating], drafts: list[Draft], raw: Appender
) -> list[str]:
    """Drafts by a critic that is a function, until every level has enough or its pictures are spent; picture errors."""
    done = {draft.image for draft in drafts}
    kept = Counter(level_of(draft.score) for draft in drafts if draft.refused is None)
    wanted = config.n // len(LEVELS)
    unreadable: list[str] = []
    write = partial(write_drafts, config, critic)
    with ProcessPoolExecutor() as workers, bar("aescot", total=wanted * len(LEVELS)) as progress:
        progress.advance(sum(min(wanted, kept[level]) for level in LEVELS))
        for level in LEVELS:
            todo = [
                row for row in shuffled(ratings, config.seed) if level_of(row.score) == level and row.image not in done
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
    return unreadable


def write_drafts(config: CotConfig, critic: Critic, rating: Rating) -> list[Draft] | str:
    """Drafts for one picture until one is kept or the attempts are spent; or why it could not be opened."""
    try:
        picture = open_image(rating.image)
        seen = see(picture, domain=rating.domain)
    except AesError as error:
        return error.problem
    drafts: list[Draft] = []
    for attempt in range(config.attempts):
        rng = np.random.default_rng([config.seed, attempt, *Path(rating.image).name.encode(errors="surrogateescape")])
        text = critic(picture, rating.score, seen, rng)
        reason = refuse(text, score=rating.score, findings=seen, settings=config.filters)
        drafts.append(Draft(rating.image, rating.score, rating.domain, attempt, text, reason, critic.__name__))
        if reason is None:
            break
    return drafts


def shuffled(ratings: Sequence[Rating], seed: int) -> list[Rating]:
    """Ratings in a random order that the seed fixes."""
    order = np.random.default_rng(seed).permutation(len(ratings))
    return [ratings[i] for i in order]
