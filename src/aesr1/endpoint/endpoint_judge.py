"""Asks a model behind one or more OpenAI-compatible servers by a profile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple

from aesr1.contract import parse_reply
from aesr1.endpoint.client import Answer, EndpointClient, only_model
from aesr1.endpoint.profile import Profile
from aesr1.endpoint.read_logprobs import expect_words, expect_written_score
from aesr1.endpoint.read_reply import row_of_reply
from aesr1.endpoint.settings import EndpointConfig
from aesr1.errors import AesError
from aesr1.images.data_url import data_url
from aesr1.images.load import open_image
from aesr1.model.predict import Origin, empty_row
from aesr1.records import Prediction
from aesr1.terminal import say

FEWEST_UNANSWERED = 3
"""After as many pictures in a row without an answer as may be in flight, and at least these, the server is down."""
NOT_ANSWERED = ("unreachable", "rejected")
TOP_LOGPROBS = 20
"""What vLLM and OpenAI list at most by default."""


@dataclass(frozen=True)
class EndpointJudge:
    """A model behind a server, and how it is asked."""

    config: EndpointConfig
    profile: Profile
    seed: int
    critiques: Mapping[str, str] = field(default_factory=dict)  # by picture, where the profile asks about one

    @property
    def origins(self) -> list[Origin]:
        """Of its rows: under the contract the score is read in one of two ways, by what the server gives."""
        ways = ("expectation over the written score", "the written score")
        readings: Sequence[str | None] = ways if self.profile.reading == "contract" else (None,)
        where = f"served at {self.config.url}"
        return [Origin(self.config.model, where, self.profile.describe(self.seed, way)) for way in readings]


def is_address(model: str) -> bool:
    """Whether a model is one behind a server."""
    return model.startswith(("http://", "https://"))


def endpoint_judge(address: str, profile: Profile, *, in_flight: int, seed: int) -> EndpointJudge:
    """The judge at URL#MODEL, or at URL where the server has one model. AesError where it has none or several.

    Words are asked for as one token at temperature 1, because servers then list the model's own probabilities.
    """
    url, _, model = address.partition("#")
    words = profile.reading == "words"
    config = EndpointConfig(
        url,
        model or only_model(url),
        in_flight=in_flight,
        temperature=1.0 if words else profile.temperature,
        max_tokens=1 if words else profile.max_new_tokens,
    )
    return EndpointJudge(config, profile, seed)


class _Asked(NamedTuple):
    """A picture, and which servers did not answer about it."""

    image: str
    tried: frozenset[int] = frozenset()
    row: Prediction | None = None  # what the last of them gave


class _Waiting:
    """The pictures that wait for a server, and the servers that may take one."""

    def __init__(self, images: Iterable[str], servers: Iterable[int]) -> None:
        self.servers = set(servers)
        self._images = iter(images)
        self._returned: list[_Asked] = []
        self._in_hand = 0
        self._changed = asyncio.Event()

    async def take(self, server: int) -> _Asked | None:
        """The next picture that this server was not asked about; None where none can come, or it is left out."""
        while server in self.servers:
            asked = next((each for each in self._returned if server not in each.tried), None)
            if asked is not None:
                self._returned.remove(asked)
            elif (image := next(self._images, None)) is not None:
                asked = _Asked(image)
            if asked is not None or not self._in_hand:
                self._in_hand += asked is not None
                return asked
            self._changed.clear()
            await self._changed.wait()
        return None

    def put(self, returned: _Asked | None = None) -> None:
        """A picture is no longer in hand: it has its row, or it waits again."""
        self._in_hand -= 1
        if returned is not None:
            self._returned.append(returned)
        self._changed.set()

    def leave_out(self, server: int) -> None:
        """The server takes no more pictures."""
        self.servers.discard(server)
        self._changed.set()

    def left(self) -> list[Prediction]:
        """The last rows of pictures that no server answered about."""
        return [each.row for each in self._returned if each.row is not None]


def ask_endpoints(
    judges: Sequence[EndpointJudge],
    images: Iterable[str],
    write: Callable[[Prediction], None],
    pool: Executor | None,
) -> None:
    """Ask about each picture a server that is free, and `write` its row once it is known, in any order.

    `pool` opens the pictures. A server that is down, or refuses all requests, is left out, and its pictures go to the
    others. AesError where none is left; the rows so far are written.
    """
    try:
        asyncio.run(_ask_all(judges, images, write, pool))
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(error: BaseException) -> BaseException:
    """The first error of a group, which is the cause of the others."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


async def _ask_all(
    judges: Sequence[EndpointJudge],
    images: Iterable[str],
    write: Callable[[Prediction], None],
    pool: Executor | None,
) -> None:
    images = iter(images)
    if (first := next(images, None)) is None:
        return
    waiting = _Waiting(chain([first], images), range(len(judges)))

    async def serve(server: int, judge: EndpointJudge) -> None:
        try:
            await _ask_one_server(server, judge, waiting, write, pool)
        except AesError as error:
            waiting.leave_out(server)
            if not waiting.servers:
                raise
            left = f"{len(waiting.servers)} of {len(judges)} servers go on"
            say(f"{judge.config.url} is left out, {left}: {error.problem}")

    async with asyncio.TaskGroup() as tasks:
        for server, judge in enumerate(judges):
            tasks.create_task(serve(server, judge))
    for row in waiting.left():
        write(row)


async def _ask_one_server(
    server: int,
    judge: EndpointJudge,
    waiting: _Waiting,
    write: Callable[[Prediction], None],
    pool: Executor | None,
) -> None:
    """Ask one server until no picture waits. AesError where it is to be left out, once the last answer is there."""
    unanswered = 0
    errors: list[AesError] = []

    async def work(client: EndpointClient) -> None:
        nonlocal unanswered
        while (asked := await waiting.take(server)) is not None:
            tried = asked.tried | {server}
            try:
                row = await _ask(judge, client, asked.image, pool)
            except AesError as error:
                errors.append(error)
                waiting.leave_out(server)
                waiting.put(asked._replace(tried=tried))
                return
            if (row.error or "").startswith(NOT_ANSWERED):
                unanswered += 1
                if others := waiting.servers - tried:
                    waiting.put(_Asked(asked.image, tried, row))
            else:
                unanswered, others = 0, set()
            if not others:
                write(row)
                waiting.put()
            if unanswered >= max(FEWEST_UNANSWERED, judge.config.in_flight):
                problem = f"{judge.config.url} has not answered for {unanswered} pictures ({row.error})"
                errors.append(AesError(problem, fix="check the server; the same command resumes"))
                waiting.leave_out(server)

    async with EndpointClient(judge.config) as client, asyncio.TaskGroup() as tasks:
        for _ in range(judge.config.in_flight):
            tasks.create_task(work(client))
    if errors:
        raise errors[0]


async def _ask(judge: EndpointJudge, client: EndpointClient, image: str, pool: Executor | None) -> Prediction:
    empty = replace(empty_row(judge.origins[0]), image=image)
    loop = asyncio.get_running_loop()
    try:
        url = await loop.run_in_executor(pool, _picture, image, judge.profile.max_pixels)
    except AesError as error:
        return replace(empty, error=error.problem.removeprefix(f"{image} "))
    picture = {"type": "image_url", "image_url": {"url": url}}
    messages = judge.profile.messages(picture, judge.critiques.get(image, ""))
    if judge.profile.stem:
        messages.append({"role": "assistant", "content": judge.profile.stem})
    answer = await client.ask(messages, _fields(judge))
    if answer.failure is not None:
        return replace(empty, error=answer.failure)
    return _row(judge, empty, answer)


def _picture(image: str, max_pixels: int) -> str:
    return data_url(open_image(image, max_pixels=max_pixels))


def _fields(judge: EndpointJudge) -> dict[str, Any]:
    """The fields of a request beside model, messages, temperature and longest answer.

    All of the sampling is named, because a server's defaults are those of the checkpoint's own settings.
    """
    profile = judge.profile
    fields: dict[str, Any] = {"top_p": profile.top_p, "top_k": profile.top_k or -1, "repetition_penalty": 1.0}
    if profile.temperature:
        fields["seed"] = judge.seed
    if profile.stem:
        fields |= {"continue_final_message": True, "add_generation_prompt": False}
    if profile.reading in ("words", "contract"):
        fields |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
    return fields


def _row(judge: EndpointJudge, empty: Prediction, answer: Answer) -> Prediction:
    profile, reply = judge.profile, answer.text or ""
    if profile.reading == "words":
        if not answer.tokens or not answer.tokens[0].probabilities:
            raise AesError(
                f"{judge.config.url} gives no log-probabilities, which profile {profile.name} needs",
                fix="start the server so that it does, or choose a profile that reads a number",
            )
        values = [profile.normalised(value) for value in profile.words.values()]
        expected = expect_words(answer.tokens[0].probabilities, profile.spaced_words(), values)
        if isinstance(expected, str):
            return replace(empty, error=expected)
        return replace(empty, score=expected.score, score_std=expected.score_std)
    if profile.reading != "contract":
        return row_of_reply(empty, profile, reply)
    judgement = parse_reply(reply)
    if judgement is None:
        return replace(empty, readable=False, reply=reply)
    row = replace(empty, score=judgement.score, readable=True, reasoning=judgement.reasoning, reply=reply)
    written = expect_written_score(answer.tokens or (), judgement.score)
    if written is None:
        return replace(row, decoding=judge.origins[1].decoding)
    return replace(row, score=written.score, score_std=written.score_std)
