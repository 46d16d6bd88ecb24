"""Selects the rationales from the drafts, balanced over levels; also with other filters later."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from aesr1.aescot.filters import NOT_ASKED, PAPER_FILTERS, REASONS, Critique, refusal_of, refusals_among
from aesr1.aescot.settings import FilterSettings
from aesr1.contract import LEVELS, Judgement, level_of, render_reply
from aesr1.errors import AesError
from aesr1.facts.measured_facts import PictureFacts, measure_facts
from aesr1.images.load import open_image
from aesr1.json_lines import read_rows, write_rows
from aesr1.outputs import staged_output, write_json, write_run
from aesr1.progress import progress_bar
from aesr1.records import Draft, Rationale
from aesr1.worker_processes import worker_pool

RESULTS = ("rationales.jsonl", "refused.jsonl", "summary.json")


class CotSummary(NamedTuple):
    """What happened to pictures and drafts, by level."""

    wanted: int  # rationales a level
    kept: dict[str, int]
    refused: dict[str, dict[str, int]]  # filter → level → drafts
    unreadable: list[str]  # why pictures could not be opened
    tokens_in: int = 0
    tokens_out: int = 0
    stopped: str | None = None  # why asking ended before all was there


class Selection(NamedTuple):
    """What is kept and what is not."""

    rationales: list[Rationale]
    refused: list[Draft]


def select_rationales(drafts: Sequence[Draft], wanted: int, filters: FilterSettings) -> Selection:
    """The first `wanted` accepted drafts of each level, and every refused draft with its reason."""
    sifted = apply_filters(drafts, filters)
    return Selection(_chosen(sifted.standing, wanted), [*sifted.alone, *sifted.among])


def summarise(
    drafts: Sequence[Draft],
    choice: Selection,
    wanted: int,
    *,
    unreadable: Sequence[str] = (),
    stopped: str | None = None,
) -> CotSummary:
    """Counts by level."""
    counts = Counter((str(draft.refused).split(":", 1)[0], level_of(draft.score)) for draft in choice.refused)
    kinds = [name for name in REASONS if name in PAPER_FILTERS or any(counts[name, level] for level in LEVELS)]
    return CotSummary(
        wanted=wanted,
        kept={level: sum(level_of(row.score) == level for row in choice.rationales) for level in LEVELS},
        refused={name: {level: counts[name, level] for level in LEVELS} for name in kinds},
        unreadable=list(unreadable),
        tokens_in=sum(draft.tokens_in for draft in drafts),
        tokens_out=sum(draft.tokens_out for draft in drafts),
        stopped=stopped,
    )


def write_selection(output: Path, choice: Selection, summary: CotSummary) -> None:
    """Write `rationales.jsonl`, `refused.jsonl` and `summary.json`."""
    with staged_output(output, *RESULTS) as part:
        write_json(part / "summary.json", summary._asdict())
        write_rows(part / "refused.jsonl", choice.refused)
        write_rows(part / "rationales.jsonl", choice.rationales)


class FilteredDrafts(NamedTuple):
    """Drafts by the result of the filters, in the order of raw.jsonl."""

    standing: list[Draft]
    alone: list[Draft]  # refused alone
    among: list[Draft]  # passes alone and is refused when compared with the others


def apply_filters(drafts: Sequence[Draft], filters: FilterSettings) -> FilteredDrafts:
    """Apply the filters that compare drafts.

    Keeps the first accepted draft of each image, and refused ones with reasons.
    """
    first: dict[str, Draft] = {}
    for draft in drafts:
        if draft.refused is None:
            first.setdefault(draft.image, draft)
    reasons = refusals_among([draft.text for draft in first.values()], filters)
    judged = [replace(draft, refused=reason) for draft, reason in zip(first.values(), reasons, strict=True)]
    return FilteredDrafts(
        standing=[draft for draft in judged if draft.refused is None],
        alone=[draft for draft in drafts if draft.refused is not None],
        among=[draft for draft in judged if draft.refused is not None],
    )


def to_markdown(summary: CotSummary) -> str:
    """The table of kept and refused drafts, by level."""
    rows = {"kept": summary.kept, **summary.refused}
    lines = [f"| | {' | '.join(LEVELS)} | all |", "|---" * (len(LEVELS) + 2) + "|"]
    for name, by_level in rows.items():
        cells = [str(by_level[level]) for level in LEVELS]
        lines.append(f"| {name} | {' | '.join(cells)} | {sum(by_level.values())} |")
    lines.append(f"\nWanted {summary.wanted} a level; {len(summary.unreadable)} pictures could not be opened.")
    short = [f"{level} {summary.wanted - kept}" for level, kept in summary.kept.items() if kept < summary.wanted]
    if short:
        lines.append(f"Lacking: {', '.join(short)}.")
    if summary.stopped:
        lines.append(summary.stopped)
    return "\n".join(lines + summary.unreadable[:3])


def refilter(raw: Path, output: Path, *, n: int, filters: FilterSettings) -> CotSummary:
    """Apply other filters to the raw answers of a build. No request is sent; pictures are measured again."""
    started = time.time()
    drafts = read_rows(raw, Draft)
    places = {draft.image: draft.domain for draft in drafts if draft.text}
    unreadable = []
    seen: dict[str, PictureFacts] = {}
    with worker_pool() as workers, progress_bar("measure", total=len(places)) as progress:
        for image, facts in zip(places, workers.map(_see, places, places.values(), chunksize=8), strict=True):
            progress.advance(1)
            if isinstance(facts, str):
                unreadable.append(facts)
            else:
                seen[image] = facts
    judged = list(_judged_anew(drafts, seen, filters))
    choice = select_rationales(judged, n // len(LEVELS), filters)
    summary = summarise(judged, choice, n // len(LEVELS), unreadable=unreadable)
    write_selection(output, choice, summary)
    write_run(output, "cot filter", filters, started=started, raw=str(raw))
    return summary


def _see(image: str, domain: str) -> PictureFacts | str:
    try:
        return measure_facts(open_image(image), domain=domain)
    except AesError as error:
        return error.problem


def _judged_anew(drafts: Sequence[Draft], seen: dict[str, PictureFacts], filters: FilterSettings) -> Iterator[Draft]:
    for draft in drafts:
        if not draft.text or (draft.refused or "").startswith(NOT_ASKED):  # no judge was asked about it
            yield draft
        elif draft.image in seen:
            critique = Critique(draft.text, draft.score, seen[draft.image], draft.finish, draft.judged or {})
            reason = refusal_of(critique, filters)
            yield replace(draft, refused=reason)


def _chosen(standing: Sequence[Draft], wanted: int) -> list[Rationale]:
    """The first `wanted` drafts of each level, in an order that mixes the levels. Each is a valid reply."""
    by_level: dict[str, list[Rationale]] = {level: [] for level in LEVELS}
    for draft in standing:
        rows = by_level[level_of(draft.score)]
        if len(rows) < wanted:
            render_reply(Judgement(draft.score, draft.text))  # raises where the reply would be unreadable
            rows.append(Rationale(draft.image, draft.score, draft.domain, draft.text, draft.critic, draft.prompt))
    longest = max(map(len, by_level.values()), default=0)
    return [rows[i] for i in range(longest) for rows in by_level.values() if i < len(rows)]
