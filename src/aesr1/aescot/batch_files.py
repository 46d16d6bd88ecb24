"""Requests to the teacher and their answers as files, for OpenAI's Batch API and `vllm run-batch`."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from aesr1.aescot.filters import NOT_ASKED, Critique, refusal_of
from aesr1.aescot.prompts import teacher_messages, version
from aesr1.aescot.teacher import TeacherPlan, critique_of, open_attempts
from aesr1.contract import LEVELS, level_of
from aesr1.endpoint.client import is_content_filter, parse_completion
from aesr1.errors import AesError
from aesr1.facts.measured_facts import measure_facts
from aesr1.images.data_url import data_url
from aesr1.images.load import open_image
from aesr1.json_lines import Appender
from aesr1.outputs import staged_output
from aesr1.progress import progress_bar
from aesr1.records import Draft, Rating
from aesr1.worker_processes import worker_pool

ADDRESS = "/v1/chat/completions"


class RequestsWritten(NamedTuple):
    """A file of requests."""

    file: Path
    requests: int
    unreadable: list[str]


class AnswersRead(NamedTuple):
    """What a file of answers brought."""

    answers: int  # new in the ledger
    known: int  # in the ledger already
    unknown: int  # of no picture of these ratings
    failed: int  # requests without an answer; the next file has them again


@dataclass(frozen=True)
class _Request:
    rating: Rating
    attempt: int


def write_requests(
    plan: TeacherPlan, ratings: Sequence[Rating], drafts: Sequence[Draft], file: Path
) -> RequestsWritten:
    """Write one request a line, for as many pictures as each level still needs. The file must be new."""
    kept = Counter(level_of(draft.score) for draft in drafts if draft.refused is None)
    todo = open_attempts(ratings, drafts, plan.attempts)
    chosen = [job for level in LEVELS for job in list(todo[level])[: max(0, plan.of(level) - kept[level])]]
    if not chosen:
        raise AesError("there is nothing left to ask", fix="the build is complete, or its pictures are spent")
    unreadable: list[str] = []
    with (
        staged_output(file.parent, file.name) as part,
        (part / file.name).open("w", encoding="utf-8") as out,
        worker_pool() as workers,
        progress_bar("batch", total=len(chosen)) as progress,
    ):
        for line in workers.map(partial(_request, plan), *zip(*chosen, strict=True), chunksize=4):
            progress.advance(1)
            if line.startswith("{"):
                out.write(line + "\n")
            else:
                unreadable.append(line)
    return RequestsWritten(file, len(chosen) - len(unreadable), unreadable)


def _request(plan: TeacherPlan, rating: Rating, attempt: int) -> str:
    """A line of the file, or why the picture could not be opened."""
    endpoint = plan.teacher.endpoint
    try:
        url = data_url(open_image(rating.image, max_pixels=plan.teacher.max_pixels))
    except AesError as error:
        return error.problem
    body = {
        "model": endpoint.model,
        "messages": teacher_messages(url, rating.score, name=plan.teacher.prompt),
        "temperature": endpoint.temperature,
        "max_tokens": endpoint.max_tokens,
    }
    return json.dumps({"custom_id": request_id(rating.image, attempt), "method": "POST", "url": ADDRESS, "body": body})


def request_id(image: str, attempt: int) -> str:
    """The id of a request: the same in every run, without the path."""
    return f"{hashlib.blake2b(image.encode(errors='surrogateescape'), digest_size=12).hexdigest()}-{attempt}"


def read_answers(
    plan: TeacherPlan, ratings: Sequence[Rating], drafts: list[Draft], file: Path, raw: Appender
) -> AnswersRead:
    """Append a file of answers to raw.jsonl. Lines may come in any order, twice, or belong to other requests.

    AesError names a line that is not an answer.
    """
    requests = {request_id(r.image, n): _Request(r, n) for r in ratings for n in range(plan.attempts)}
    answered = [draft for draft in drafts if not (draft.refused or "").startswith(NOT_ASKED)]
    done = {request_id(draft.image, draft.attempt) for draft in answered}
    known = unknown = failed = 0
    before = len(drafts)
    for name, answer in _lines(file):
        job = requests.get(name)
        if job is None:
            unknown += 1
        elif name in done:
            known += 1
        elif answer is None:
            failed += 1
        else:
            try:
                draft = _draft(plan, job, answer)
            except AesError:  # its picture is missing
                failed += 1
                continue
            done.add(name)
            raw.append(draft)
            drafts.append(draft)
    return AnswersRead(len(drafts) - before, known, unknown, failed)


def _lines(file: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The request's id, and the completion or a content filter's refusal; None where there is neither."""
    if not file.is_file():
        raise AesError(f"there is no file {file}", fix="pass the file of answers that the service gave")
    with file.open(encoding="utf-8") as opened:
        for number, line in enumerate(opened, start=1):
            where = f"{file}, line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                name, response = row["custom_id"], row.get("response") or {}
                code, body = response.get("status_code", 200), response.get("body")
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise AesError(
                    f"{where} is not an answer of a batch: {error}", fix="get the file again; it may be cut off"
                ) from error
            known = isinstance(body, dict) and (code == 200 or is_content_filter(json.dumps(body)))
            yield str(name), body if known else None


def _draft(plan: TeacherPlan, job: _Request, body: dict[str, Any]) -> Draft:
    answer = parse_completion(body)
    rating = job.rating
    text = critique_of(answer.text or "")
    reason = answer.failure
    if reason is None:
        seen = measure_facts(open_image(rating.image), domain=rating.domain)
        reason = refusal_of(Critique(text, rating.score, seen, answer.finish), plan.filters)
    return Draft(
        image=rating.image,
        score=rating.score,
        domain=rating.domain,
        attempt=job.attempt,
        text=text,
        refused=reason,
        critic=plan.teacher.endpoint.model,
        prompt=version(plan.teacher.prompt),
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        finish=answer.finish,
    )
