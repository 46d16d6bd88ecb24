"""The HTML page of a build: pictures, drafts, and why drafts were refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from aesr1.aescot.filters import MEANINGS, REASONS
from aesr1.aescot.select import RESULTS
from aesr1.contract import LEVELS, level_of
from aesr1.errors import AesError
from aesr1.html_page import InlineThumbnail, distinct, inline_thumbnail, render_page, short_names
from aesr1.json_lines import read_rows
from aesr1.outputs import staged_output
from aesr1.progress import RunningBar, progress_bar
from aesr1.records import Draft, Rationale

TEMPLATE = Path(__file__).parent / "templates" / "show.html.j2"
SIDE = 240
UNKNOWN = -1
"""The attempt of a rationale without a draft: `aesr1 cot filter` writes none."""
OTHER = "other"
"""The kind of a reason that no filter of ours gives."""
KINDS = (*REASONS, OTHER)


class PageSummary(NamedTuple):
    """What a page holds."""

    drafts: int  # of the folder
    shown: int  # of them on the page
    missing: int  # shown pictures that have a placeholder


@dataclass(frozen=True)
class BuildFolder:
    """The content of a build's folder."""

    drafts: list[Draft]
    finished: bool
    wanted: int | None  # rationales a level
    spare: int  # drafts with nothing against them that were not needed
    tokens_in: int
    tokens_out: int
    unreadable: list[str]  # why pictures could not be opened


@dataclass(frozen=True)
class DraftCard:
    """One draft as the page shows it."""

    draft: Draft
    attempt: int | None  # from 1
    reason: str  # its kind; empty where the draft is kept
    detail: str


@dataclass(frozen=True)
class PictureDrafts:
    """One picture and the drafts about it."""

    place: int
    name: str
    score: float
    level: str
    thumbnail: InlineThumbnail
    cards: list[DraftCard]


def write_page(folder: Path, output: Path, *, raw: bool = False, limit: int = 300) -> PageSummary:
    """Write a page about the drafts in a build's folder; returns what it holds.

    Drafts are kept or refused as in the results; with `raw`, or for an unfinished build, as in raw.jsonl, where each
    draft was filtered alone. Of more drafts than `limit` a seeded sample of whole pictures is shown, balanced over
    reasons and levels. AesError where `output` exists.
    """
    if limit < 1:
        raise AesError(f"a limit of {limit} drafts", fix="show one draft at least")
    build = read_build(folder, raw=raw)
    groups = balanced_sample(by_image(build.drafts), limit)
    shown = sum(map(len, groups))
    missing: list[str] = []
    with (
        staged_output(output.absolute().parent, output.name) as part,
        progress_bar("pictures", total=len(groups)) as progress,
    ):
        context = {
            **_head(build),
            "title": f"Rationales of {folder.absolute().name}",
            "raw": raw,
            "shown": shown,
            "shown_pictures": len(groups),
            "pictures": _pictures(build, groups, missing, progress),
        }
        render_page(part / output.name, TEMPLATE, "aesr1 cot show", context)
    return PageSummary(drafts=len(build.drafts), shown=shown, missing=len(missing))


def read_build(folder: Path, *, raw: bool = False) -> BuildFolder:
    """The drafts of a folder, those that were kept first. AesError where it holds none."""
    results, ledger = folder / RESULTS[0], folder / "raw.jsonl"
    if not (ledger.exists() or (results.exists() and not raw)):
        raise AesError(
            f"{folder} holds no {'raw.jsonl' if raw else 'drafts'}", fix="pass the output folder of aesr1 cot build"
        )
    written = read_rows(ledger, Draft) if ledger.exists() else []
    settings, summary = _values(folder / "settings.json"), _values(folder / RESULTS[2])
    finished = results.exists()
    known = {(draft.image, draft.text): draft for draft in written if draft.refused is None}
    drafts = written
    if finished and not raw:
        rationales = read_rows(results, Rationale)
        kept = [known.get((row.image, row.reasoning)) or _as_draft(row) for row in rationales]
        drafts = kept + read_rows(folder / RESULTS[1], Draft)
    if not drafts:
        raise AesError(f"{folder} holds no drafts", fix="have some written first: aesr1 cot build")
    requested = settings.get("n")
    return BuildFolder(
        drafts=drafts,
        finished=finished,
        wanted=summary.get("wanted") or (requested // len(LEVELS) if requested else None),
        spare=max(0, len(written) - len(drafts)),
        tokens_in=summary.get("tokens_in") or sum(draft.tokens_in for draft in written or drafts),
        tokens_out=summary.get("tokens_out") or sum(draft.tokens_out for draft in written or drafts),
        unreadable=summary.get("unreadable", []),
    )


def _values(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is missing."""
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AesError(
            f"{path} is not JSON: {error}", fix="restore it, or move it away: the page does without"
        ) from error
    return values if isinstance(values, dict) else {}


def _as_draft(row: Rationale) -> Draft:
    return Draft(row.image, row.score, row.domain, UNKNOWN, row.reasoning, None, row.critic, row.prompt)


def by_image(drafts: Sequence[Draft]) -> list[list[Draft]]:
    """The drafts of each image together, in the order of their first ones. An image with two ratings comes twice."""
    groups: dict[tuple[str, float], list[Draft]] = {}
    for draft in drafts:
        groups.setdefault((draft.image, draft.score), []).append(draft)
    return list(groups.values())


def reason_of(draft: Draft) -> tuple[str, str]:
    """The kind of the reason against a draft, and its detail; both empty for a kept draft."""
    if draft.refused is None:
        return "", ""
    kind, _, detail = draft.refused.partition(":")
    return (kind, detail.strip()) if kind in KINDS else (OTHER, draft.refused)


def balanced_sample(groups: Sequence[list[Draft]], limit: int, *, seed: int = 0) -> list[list[Draft]]:
    """Groups with at most `limit` drafts, in their order, balanced over pairs of reason and level.

    A group is never cut: the first one is shown even if it has more drafts.
    """
    cells = [[(reason_of(draft)[0], level_of(draft.score)) for draft in group] for group in groups]
    queues: dict[tuple[str, str], list[int]] = {}
    for number in Random(seed).sample(range(len(groups)), len(groups)):
        for cell in set(cells[number]):
            queues.setdefault(cell, []).append(number)
    counts: Counter[tuple[str, str]] = Counter()
    chosen: set[int] = set()
    while queues and counts.total() < limit:
        rarest = min(queues, key=lambda cell: (counts[cell], cell))
        number = queues[rarest].pop()
        if not queues[rarest]:
            del queues[rarest]
        if number not in chosen and (not chosen or counts.total() + len(groups[number]) <= limit):
            chosen.add(number)
            counts.update(cells[number])
    return [groups[number] for number in sorted(chosen)]


def _head(build: BuildFolder) -> dict[str, object]:
    """What the page shows above the pictures, about all drafts."""
    drafts = build.drafts
    counts = Counter((reason_of(draft)[0], level_of(draft.score)) for draft in drafts)
    reasons = sorted({reason for reason, _ in counts if reason}, key=KINDS.index)
    rows = {reason: [counts[reason, level] for level in LEVELS] for reason in ["", *reasons]}
    refused = [sum(rows[reason][i] for reason in reasons) for i in range(len(LEVELS))]
    provenance = (
        ("Critic", distinct(draft.critic for draft in drafts)),
        ("Prompt", distinct(draft.prompt for draft in drafts if draft.prompt)),
        ("Data", distinct(draft.domain for draft in drafts)),
        ("Contract", distinct(f"version {draft.contract}" for draft in drafts)),
    )
    return {
        "build": build,
        "levels": LEVELS,
        "kept": rows.pop(""),
        "refused": refused,
        "reasons": rows,
        "meanings": {**MEANINGS, OTHER: "another reason"},
        "all_pictures": len({draft.image for draft in drafts}),
        "provenance": [(term, values) for term, values in provenance if values],
    }


def _pictures(
    build: BuildFolder, groups: Sequence[list[Draft]], missing: list[str], progress: RunningBar
) -> Iterator[PictureDrafts]:
    """The shown pictures, one in memory at a time. The names of those that cannot be opened are added to `missing`."""
    names = short_names([draft.image for draft in build.drafts])
    for number, drafts in enumerate(groups):
        image, score = drafts[0].image, drafts[0].score
        picture = inline_thumbnail(image, names[image], SIDE)
        if not picture.source:
            missing.append(names[image])
        progress.advance(1)
        cards = [
            DraftCard(draft, None if draft.attempt == UNKNOWN else draft.attempt + 1, *reason_of(draft))
            for draft in sorted(drafts, key=lambda draft: (draft.attempt == UNKNOWN, draft.attempt))
        ]
        yield PictureDrafts(number, names[image], score, level_of(score), picture, cards)
