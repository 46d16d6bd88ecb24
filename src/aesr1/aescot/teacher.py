"""Asks a teacher over HTTP about many pictures at once. Each answer is on disk before it counts.

`kill -9` loses only the requests in flight: a row is on disk before its picture counts as done.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import NamedTuple

from aesr1.aescot.filters import FINAL, NOT_ASKED, Critique, refusal_of
from aesr1.aescot.ledger import Ledger
from aesr1.aescot.prompts import SEES_THE_PICTURE, judge_messages, teacher_messages, template, version
from aesr1.aescot.settings import JUDGES, FilterSettings, Teacher
from aesr1.contract import LEVELS, level_of, parse_reply
from aesr1.endpoint.client import Answer, EndpointClient
from aesr1.errors import AesError
from aesr1.facts.measured_facts import PictureFacts, measure_facts
from aesr1.images.data_url import data_url
from aesr1.images.load import open_image
from aesr1.json_lines import Appender
from aesr1.progress import RunningBar, progress_bar
from aesr1.records import Draft, Rating
from aesr1.worker_processes import worker_pool

MAX_UNANSWERED = 50
"""After this many pictures in a row without an answer, the server counts as down."""


@dataclass(frozen=True)
class TeacherPlan:
    """How many drafts each level needs, and the filters."""

    wanted: int
    attempts: int
    filters: FilterSettings
    teacher: Teacher
    taken: Counter[str] = field(default_factory=Counter)  # by level: kept drafts that the filters over all texts took

    def of(self, level: str) -> int:
        """How many drafts of a level must pass alone."""
        return self.wanted + self.taken[level]


@dataclass
class TeacherResult:
    """The result of asking."""

    unreadable: list[str] = field(default_factory=list)  # why pictures could not be opened
    stopped: str | None = None


class RequestParts(NamedTuple):
    """A picture as it is sent, and its measured facts."""

    url: str
    findings: PictureFacts


def prepare_request(image: str, domain: str, max_pixels: int) -> RequestParts | str:
    """Open, shrink, encode and measure a picture; or the reason why that fails."""
    try:
        return RequestParts(
            data_url(open_image(image, max_pixels=max_pixels)), measure_facts(open_image(image), domain=domain)
        )
    except AesError as error:
        return error.problem


def ask_teacher(plan: TeacherPlan, ratings: Sequence[Rating], drafts: list[Draft], raw: Appender) -> TeacherResult:
    """Ask until every level has enough kept drafts or no pictures are left; `drafts` grows. AesError as `ask`."""
    return asyncio.run(_TeacherRun(plan, drafts).run(ratings, raw))


def open_attempts(
    ratings: Sequence[Rating], drafts: Sequence[Draft], attempts: int
) -> dict[str, deque[tuple[Rating, int]]]:
    """By level, pictures with their next attempt: those without a kept draft or a final answer, with attempts left."""
    history: dict[str, list[Draft]] = {}
    for draft in drafts:
        if not (draft.refused or "").startswith(NOT_ASKED):
            history.setdefault(draft.image, []).append(draft)
    todo: dict[str, deque[tuple[Rating, int]]] = {level: deque() for level in LEVELS}
    for rating in ratings:
        before = history.get(rating.image, [])
        done = any(draft.refused is None or draft.refused.startswith(FINAL) for draft in before)
        if not done and len(before) < attempts:
            todo[level_of(rating.score)].append((rating, len(before)))
    return todo


class _TeacherRun:
    """The state of one run: drafts kept, requests in flight and pictures left of each level."""

    def __init__(self, plan: TeacherPlan, drafts: list[Draft]) -> None:
        self.plan, self.drafts = plan, drafts
        self.result = TeacherResult()
        self.kept = Counter(level_of(draft.score) for draft in drafts if draft.refused is None)
        self.flying: Counter[str] = Counter()
        self.todo: dict[str, deque[tuple[Rating, int]]] = {}
        self.tokens_in = sum(draft.tokens_in for draft in drafts)
        self.tokens_out = sum(draft.tokens_out for draft in drafts)
        self.refused = sum(draft.refused is not None for draft in drafts)
        self.charged = sum(draft.tokens_in + draft.tokens_out > 0 for draft in drafts)
        self.answered, self.unanswered, self.spent_up = 0, 0, False
        self.error: AesError | None = None
        self.changed = asyncio.Condition()

    async def run(self, ratings: Sequence[Rating], raw: Appender) -> TeacherResult:
        """Run one task for each request that may be in flight."""
        self.todo = open_attempts(ratings, self.drafts, self.plan.attempts)
        total = sum(map(self.plan.of, LEVELS))
        endpoint = self.plan.teacher.endpoint
        with worker_pool() as workers, progress_bar("aescot", total=total) as progress:
            progress.advance(sum(min(self.plan.of(level), self.kept[level]) for level in LEVELS))
            try:
                async with EndpointClient(endpoint) as asker, Ledger(raw) as ledger, asyncio.TaskGroup() as tasks:
                    for _ in range(endpoint.in_flight):
                        tasks.create_task(self._work(asker, workers, ledger, progress))
            except BaseExceptionGroup as group:  # the first is the cause of the others
                raise group.exceptions[0] from None
        if self.error is not None:
            raise self.error
        if self.spent_up:
            limit, spent = self.plan.teacher.max_cost, self.plan.teacher.cost(self.tokens_in, self.tokens_out)
            self.result.stopped = (
                f"Stopped at {spent:.2f}: the next could cost more than {limit:.2f}. Raise --max-cost to go on."
            )
        return self.result

    async def _next(self) -> tuple[Rating, int] | None:
        """The next picture of a level that needs more drafts; None where no more are needed, left or allowed."""
        async with self.changed:
            while True:
                if self.error is not None or self._too_dear():
                    return None
                for level in sorted(LEVELS, key=lambda name: self.kept[name] + self.flying[name]):
                    if self.todo[level] and self.kept[level] + self.flying[level] < self.plan.of(level):
                        self.flying[level] += 1
                        return self.todo[level].popleft()
                if not self.flying.total():
                    return None
                await self.changed.wait()

    def _too_dear(self, *, more: int = 1) -> bool:
        """Whether the requests in flight and `more` may exceed the cost limit, each at the average cost so far."""
        teacher = self.plan.teacher
        if teacher.max_cost is not None and not self.spent_up:
            spent = teacher.cost(self.tokens_in, self.tokens_out)
            each = spent / self.charged if self.charged else teacher.cost(*tokens_of_a_request(teacher))
            self.spent_up = spent + each * (self.flying.total() + more) > teacher.max_cost
        return self.spent_up

    async def _work(self, asker: EndpointClient, workers: Executor, ledger: Ledger, progress: RunningBar) -> None:
        """Take one picture after another until none is needed. After an error, what is in flight comes to its end."""
        began = time.monotonic()
        while (job := await self._next()) is not None:
            rating, attempt = job
            level = level_of(rating.score)
            kept = False
            try:
                kept = await self._one(rating, attempt, asker, workers, ledger)
            except AesError as error:
                self.error = self.error or error
            finally:
                async with self.changed:
                    self.flying[level] -= 1
                    self.kept[level] += kept
                    self.changed.notify_all()
            progress.advance(kept)
            spent = self.plan.teacher.cost(self.tokens_in, self.tokens_out)
            rate = self.answered / max(1e-3, time.monotonic() - began)
            progress.note(f"{rate:.1f} answers/s  {self.refused} refused  cost {spent:.2f}")

    async def _one(self, rating: Rating, first: int, asker: EndpointClient, workers: Executor, ledger: Ledger) -> bool:
        """Ask about one picture, up to all its attempts; returns whether a draft was kept."""
        loop = asyncio.get_running_loop()
        max_pixels = self.plan.teacher.max_pixels
        prepared = await loop.run_in_executor(workers, prepare_request, rating.image, rating.domain, max_pixels)
        if isinstance(prepared, str):
            self.result.unreadable.append(prepared)
            return False
        for attempt in range(first, self.plan.attempts):
            if attempt > first and self._too_dear(more=0):
                break
            draft = await self._draft(rating, attempt, prepared, asker)
            await ledger.append(draft)
            self.drafts.append(draft)
            self.tokens_in += draft.tokens_in
            self.tokens_out += draft.tokens_out
            self.answered += 1
            self.charged += draft.tokens_in + draft.tokens_out > 0
            if draft.refused is None:
                return True
            self.refused += 1
            if draft.refused.startswith(FINAL + NOT_ASKED):
                break
        return False

    async def _draft(self, rating: Rating, attempt: int, prepared: RequestParts, asker: EndpointClient) -> Draft:
        """Ask once; ask the judges too if the filters have no reason against the draft."""
        answer = await asker.ask(teacher_messages(prepared.url, rating.score, name=self.plan.teacher.prompt))
        self._watch(answer)
        text = critique_of(answer.text or "")
        tokens_in, tokens_out = answer.tokens_in, answer.tokens_out
        judged: dict[str, str] = {}
        critique = Critique(text, rating.score, prepared.findings, answer.finish)
        reason = answer.failure or refusal_of(critique, self.plan.filters)
        if reason is None and self.plan.teacher.judges:
            for judge in self.plan.teacher.judges:
                answer = await asker.ask(judge_messages(judge, text, prepared.url))
                tokens_in, tokens_out = tokens_in + answer.tokens_in, tokens_out + answer.tokens_out
                if answer.failure:
                    reason = f"unreachable: the judge of {judge}: {answer.failure}"
                    break
                judged[judge] = answer.text or ""
            reason = reason or refusal_of(critique._replace(judged=judged), self.plan.filters)
        return Draft(
            image=rating.image,
            score=rating.score,
            domain=rating.domain,
            attempt=attempt,
            text=text,
            refused=reason,
            critic=asker.config.model,
            prompt=version(self.plan.teacher.prompt),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            finish=answer.finish,
            judged=judged or None,
        )

    def _watch(self, answer: Answer) -> None:
        """AesError after too many pictures without an answer."""
        unreachable = answer.failure is not None and answer.failure.startswith(NOT_ASKED)
        self.unanswered = self.unanswered + 1 if unreachable else 0
        if self.unanswered >= MAX_UNANSWERED:
            raise AesError(
                f"{self.plan.teacher.endpoint.url} has not answered for {MAX_UNANSWERED} pictures ({answer.failure})",
                fix="check the server; the same command resumes",
            )


def tokens_of_a_request(teacher: Teacher) -> tuple[int, int]:
    """An estimate of the tokens in and out of one draft, with its judges."""
    picture, answer = teacher.max_pixels // 28**2, 200
    tokens_in, tokens_out = picture + len(template(teacher.prompt)) // 4, answer
    for judge in teacher.judges:
        tokens_in += len(template(JUDGES[judge])) // 4 + answer + (picture if judge in SEES_THE_PICTURE else 0)
        tokens_out += 20
    return tokens_in, tokens_out


def critique_of(text: str) -> str:
    """The critique in an answer. A teacher that was trained as a scorer answers with a whole reply."""
    judgement = parse_reply(text)
    return judgement.reasoning if judgement else " ".join(text.split())
