"""Asks a model behind an OpenAI-compatible server by a profile."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

from aesr1.contract import parse_reply
from aesr1.endpoint.client import Answer, EndpointClient, only_model
from aesr1.endpoint.settings import EndpointConfig
from aesr1.errors import AesError
from aesr1.evaluation.local_judge import row_of_reply
from aesr1.evaluation.profile import Profile
from aesr1.evaluation.read_logprobs import expect_words, expect_written_score
from aesr1.images.data_url import data_url
from aesr1.images.load import open_image
from aesr1.model.predict import Origin, empty_row
from aesr1.records import Prediction

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


def ask_endpoint(
    judge: EndpointJudge, images: Sequence[str], write: Callable[[Prediction], None], pool: Executor | None
) -> None:
    """Ask about each picture and `write` its row once it is known, in any order. `pool` opens the pictures.

    AesError where no request can succeed, where the server is down, and where it cannot give what a profile of words
    needs; the rows so far are written.
    """
    try:
        asyncio.run(_ask_all(judge, deque(images), write, pool))
    except BaseExceptionGroup as group:  # the first is the cause of the others
        raise group.exceptions[0] from None


async def _ask_all(
    judge: EndpointJudge, waiting: deque[str], write: Callable[[Prediction], None], pool: Executor | None
) -> None:
    unanswered = 0

    async def work(client: EndpointClient) -> None:
        nonlocal unanswered
        while waiting:
            row = await _ask(judge, client, waiting.popleft(), pool)
            write(row)
            unanswered = unanswered + 1 if (row.error or "").startswith(NOT_ANSWERED) else 0
            if unanswered >= max(FEWEST_UNANSWERED, judge.config.in_flight):
                raise AesError(
                    f"{judge.config.url} has not answered for {unanswered} pictures ({row.error})",
                    fix="check the server; the same command resumes",
                )

    if not waiting:
        return
    async with EndpointClient(judge.config) as client, asyncio.TaskGroup() as tasks:
        for _ in range(min(judge.config.in_flight, len(waiting))):
            tasks.create_task(work(client))


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
