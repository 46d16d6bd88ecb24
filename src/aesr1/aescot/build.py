"""AesCoT: writes rationales for rated pictures and keeps those that pass the filters."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from aesr1.aescot.batch_files import AnswersRead, RequestsWritten, read_answers, write_requests
from aesr1.aescot.embedded_critic import Critic, embedded
from aesr1.aescot.filters import NOT_ASKED, Critique, refusal_of
from aesr1.aescot.prompts import version
from aesr1.aescot.select import RESULTS, CotSummary, apply_filters, select_rationales, summarise, write_selection
from aesr1.aescot.settings import CotConfig, FilterSettings
from aesr1.aescot.subjects import name_subject
from aesr1.aescot.teacher import TeacherPlan, ask_teacher, tokens_of_a_request
from aesr1.contract import LEVELS, level_of
from aesr1.errors import AesError
from aesr1.facts.measured_facts import measure_facts
from aesr1.images.load import open_image
from aesr1.json_lines import Appender, read_rows
from aesr1.outputs import require_same_settings, write_run
from aesr1.progress import progress_bar
from aesr1.records import Draft, Rating, ratings_of_split
from aesr1.worker_processes import worker_pool


@dataclass(frozen=True)
class _FixedSettings:
    """Settings that must stay the same when a build resumes. Speed, price and address may change."""

    ratings: Path
    n: int
    split: str
    attempts: int
    seed: int
    filters: FilterSettings
    critic: str
    prompt: str = ""
    judges: tuple[str, ...] = ()
    votes: int = 0


class OpenBuild(NamedTuple):
    """A build that was opened: its ratings and the drafts so far."""

    ratings: list[Rating]  # in the order of asking
    drafts: list[Draft]
    ledger: Path
    wanted: int  # of each level


def open_build(config: CotConfig, critic: Critic = embedded) -> OpenBuild:
    """Check that the folder has the same settings, and read its drafts. AesError where it is finished or differs."""
    if config.n < len(LEVELS) or config.attempts < 1:
        raise AesError(
            f"n is {config.n}, attempts {config.attempts}", fix="ask for 3 rationales and 1 attempt at least"
        )
    if (config.output / RESULTS[0]).exists():
        raise AesError(
            f"{config.output} holds finished rationales", fix="choose another output folder; nothing is overwritten"
        )
    ratings = ratings_of_split(read_rows(config.ratings, Rating), config.split, where=config.ratings)
    require_same_settings(config.output, fixed_settings(config, critic))
    ledger = config.output / "raw.jsonl"
    drafts = read_rows(ledger, Draft) if ledger.exists() else []
    return OpenBuild(shuffled(ratings, config.seed), drafts, ledger, config.n // len(LEVELS))


def build(config: CotConfig, *, critic: Critic = embedded) -> CotSummary:
    """Write `raw.jsonl` (every draft, appended), then the results. Resumes where it stopped."""
    started = time.time()
    begun = open_build(config, critic)
    with _ledger_of(begun) as raw:
        if config.teacher is None:
            unreadable, stopped = _write_all(config, critic, begun, raw), None
        else:
            unreadable, stopped = _teach_all(teacher_plan(config), begun, raw)
    return _end(config, begun, started=started, unreadable=unreadable, stopped=stopped)


@contextmanager
def _ledger_of(begun: OpenBuild) -> Iterator[Appender]:
    """The ledger to append to. Its drafts are read again, because another run may have ended since."""
    with Appender(begun.ledger) as raw:
        begun.drafts[:] = read_rows(begun.ledger, Draft)
        yield raw


def write_batch(config: CotConfig, file: Path) -> RequestsWritten:
    """Write the missing requests to a file for OpenAI's Batch API or `vllm run-batch`."""
    begun = open_build(config)
    plan = replace(teacher_plan(config), taken=_taken(begun.drafts, config.filters))
    return write_requests(plan, begun.ratings, begun.drafts, file)


def read_batch(config: CotConfig, file: Path) -> tuple[AnswersRead, CotSummary]:
    """Read a file of answers into the ledger. The results are written once every level is full."""
    started = time.time()
    begun = open_build(config)
    with _ledger_of(begun) as raw:
        read = read_answers(teacher_plan(config), begun.ratings, begun.drafts, file, raw)
    choice = select_rationales(begun.drafts, begun.wanted, config.filters)
    short = len(choice.rationales) < begun.wanted * len(LEVELS)
    stopped = "Some levels lack rationales: write the next --batch-file, or `aesr1 cot filter` what there is."
    return read, _end(config, begun, started=started, stopped=stopped if short else None)


def _end(
    config: CotConfig, begun: OpenBuild, *, started: float, unreadable: Sequence[str] = (), stopped: str | None = None
) -> CotSummary:
    choice = select_rationales(begun.drafts, begun.wanted, config.filters)
    summary = summarise(begun.drafts, choice, begun.wanted, unreadable=unreadable, stopped=stopped)
    if stopped is None:  # else the same command is to resume
        write_selection(config.output, choice, summary)
        write_run(config.output, "cot build", config, started=started)
    return summary


def teacher_plan(config: CotConfig) -> TeacherPlan:
    """What the teacher is asked for. AesError where there is no teacher."""
    if config.teacher is None:
        raise AesError("there is no teacher to ask", fix="pass --teacher URL and --model NAME")
    return TeacherPlan(config.n // len(LEVELS), config.attempts, config.filters, config.teacher)


def _teach_all(plan: TeacherPlan, begun: OpenBuild, raw: Appender) -> tuple[list[str], str | None]:
    """Ask the teacher, and ask again for drafts that the filters over all texts refuse, while pictures are left."""
    unreadable: list[str] = []
    while True:
        result = ask_teacher(plan, begun.ratings, begun.drafts, raw)
        unreadable += result.unreadable
        taken = _taken(begun.drafts, plan.filters)
        if result.stopped or taken == plan.taken:
            return list(dict.fromkeys(unreadable)), result.stopped or _unanswered(plan, begun)
        plan = replace(plan, taken=taken)


def _unanswered(plan: TeacherPlan, begun: OpenBuild) -> str | None:
    """Why the command should be run again: a level lacks rationales, and pictures of it were not answered."""
    standing = Counter(level_of(draft.score) for draft in apply_filters(begun.drafts, plan.filters).standing)
    last = {draft.image: draft for draft in begun.drafts}
    open_ = [draft for draft in last.values() if (draft.refused or "").startswith(NOT_ASKED)]
    lacking = sum(standing[level_of(draft.score)] < plan.wanted for draft in open_)
    return f"{lacking} pictures were not answered; run the same command again to ask about them." if lacking else None


def _taken(drafts: Sequence[Draft], filters: FilterSettings) -> Counter[str]:
    """By level, drafts that pass alone and are refused when compared with the others."""
    return Counter(level_of(draft.score) for draft in apply_filters(drafts, filters).among)


def fixed_settings(config: CotConfig, critic: Critic = embedded) -> _FixedSettings:
    """The settings that must not change."""
    teacher = config.teacher
    name = critic.__name__ if teacher is None else teacher.endpoint.model
    prompt_and_judges = (version(teacher.prompt), teacher.judges) if teacher else ("", ())
    c = config
    return _FixedSettings(c.ratings, c.n, c.split, c.attempts, c.seed, c.filters, name, *prompt_and_judges, c.votes)


def estimate(config: CotConfig) -> str:
    """How many drafts a build with a teacher needs, and what they may cost. No request is sent."""
    teacher = teacher_plan(config).teacher
    ratings = ratings_of_split(read_rows(config.ratings, Rating), config.split, where=config.ratings)
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


def _write_all(config: CotConfig, critic: Critic, begun: OpenBuild, raw: Appender) -> list[str]:
    """Write drafts with a critic that is a function, until every level has enough or no pictures are left. Errors."""
    drafts, wanted = begun.drafts, begun.wanted
    done = {draft.image for draft in drafts}
    kept = Counter(level_of(draft.score) for draft in drafts if draft.refused is None)
    unreadable: list[str] = []
    write = partial(write_drafts, config, critic)
    with worker_pool() as workers, progress_bar("aescot", total=wanted * len(LEVELS)) as progress:
        progress.advance(sum(min(wanted, kept[level]) for level in LEVELS))
        for level in LEVELS:
            todo = [row for row in begun.ratings if level_of(row.score) == level and row.image not in done]
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
                        about = level_of(written[-1].score)
                        kept[about] += 1
                        progress.advance(kept[about] <= wanted)
    return unreadable


def write_drafts(config: CotConfig, critic: Critic, rating: Rating) -> list[Draft] | str:
    """Drafts for one picture until one is kept or no attempts are left; or why it could not be opened."""
    try:
        picture = open_image(rating.image)
        seen = measure_facts(picture, domain=rating.domain)
        if seen.photograph and critic is embedded:
            seen = replace(seen, subject=see_subject(picture))
    except AesError as error:
        return error.problem
    drafts: list[Draft] = []
    for attempt in range(config.attempts):
        rng = np.random.default_rng([config.seed, attempt, *Path(rating.image).name.encode(errors="surrogateescape")])
        score = drawn_score(rating, config.votes, rng) if config.votes else rating.score
        text = critic(picture, score, seen, rng)
        reason = refusal_of(Critique(text, score, seen), config.filters)
        drafts.append(Draft(rating.image, score, rating.domain, attempt, text, reason, critic.__name__))
        if reason is None:
            break
    return drafts


def see_subject(picture: Image.Image) -> str | None:
    """What a photograph shows, where the embedded photo backbone's tower is sure."""
    from aesr1.model.image_classes import load_classifier  # torch is not needed for drawn scenes or a teacher

    seen = load_classifier().see([picture])
    return name_subject(seen.classes[0], float(seen.person[0]))


def drawn_score(rating: Rating, votes: int, rng: np.random.Generator) -> float:
    """The mean mark of some raters, 0–1: what one would hear on asking that many people.

    Drawn from the votes where they are known, else from a normal distribution with `rater_std`, cut off at 0 and 1.
    AesError where neither is known.
    """
    counts = np.array(rating.votes or ())
    if counts.sum() > 0:
        marks = np.linspace(0, 1, len(counts))
        return float(rng.choice(marks, size=votes, p=counts / counts.sum()).mean())
    if rating.rater_std is None:
        raise AesError(
            f"{rating.image} has neither votes nor rater_std, so no rater can be drawn", fix="leave votes out"
        )
    return float(np.clip(rng.normal(rating.score, rating.rater_std / votes**0.5), 0, 1))


def shuffled(ratings: Sequence[Rating], seed: int) -> list[Rating]:
    """Ratings in a random order, the same for the same seed."""
    order = np.random.default_rng(seed).permutation(len(ratings))
    return [ratings[i] for i in order]
