"""A client of an OpenAI-compatible server (vLLM, SGLang, a hosted model), with retries and limits.

The openai client's own retries are off: on a busy server they lose answers and take twice as long (bench/retries.py),
and they give up where a server asks for a wait of more than two minutes.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

import openai
from openai.types.chat import ChatCompletion

from aesr1.endpoint.rate_limit import RateLimit, backoff, retry_after
from aesr1.endpoint.settings import KEY_VARIABLE, EndpointConfig
from aesr1.errors import AesError
from aesr1.terminal import say

PROBE_SECONDS = 5.0
PLACEHOLDER_KEY = "none"  # sent to servers that need no key
CONTENT_FILTER_CODES = (
    *("content_filter", "content_policy_violation", "data_inspection_failed", "responsibleaipolicyviolation"),
    *("moderation", "flagged"),
)
"""Error codes of content filters."""
OPTIONAL_FIELDS = (
    *("top_p", "top_k", "repetition_penalty", "seed", "logprobs", "top_logprobs"),
    "add_generation_prompt",
)
"""Fields of a request that are left out where the server does not know them."""
OVERLOAD_STATUS = (429, 503, 529)
"""HTTP status codes of an overloaded server."""
ABSENT = -9999.0
"""vLLM's log-probability of a token that it does not know."""
MALFORMED_ANSWER = (ValueError, AttributeError, TypeError, LookupError, RecursionError)
"""What reading a malformed answer may raise."""


class Token(NamedTuple):
    """A token of an answer."""

    text: str
    probability: float
    probabilities: Mapping[str, float]  # the server's list of the most probable tokens here


class Answer(NamedTuple):
    """The result of one request: text or failure. Tokens are those of all tries.

    A failure that begins with "filtered" or "refused" is final; the next run asks again after others.
    """

    text: str | None
    failure: str | None
    tokens_in: int
    tokens_out: int
    finish: str | None = None  # "length": the text was cut off
    tokens: tuple[Token, ...] | None = None  # None where the server gives no log-probabilities


@dataclass
class _Used:
    """Tokens of a request so far."""

    tokens_in: int = 0
    tokens_out: int = 0

    def failed(self, failure: str) -> Answer:
        return Answer(None, failure, self.tokens_in, self.tokens_out)


class EndpointClient:
    """An open connection to an endpoint. Many tasks may call `ask` at the same time."""

    def __init__(self, config: EndpointConfig) -> None:
        self.config = config
        self.pace = RateLimit(config.in_flight, rpm=config.rpm, tpm=config.tpm)
        self._key = os.environ.get(config.key_variable, "").strip() or PLACEHOLDER_KEY
        if not self._key.isascii() or not self._key.isprintable():
            raise AesError(
                f"{config.key_variable} holds no key", fix="a key is plain letters and digits; export it again"
            )
        self._left_out: set[str] = set()  # optional fields that this server does not know
        self._limit = "max_tokens"  # newer OpenAI models need max_completion_tokens
        self._client = openai.AsyncOpenAI(
            base_url=config.url,
            api_key=self._key,
            max_retries=0,
            timeout=config.timeout,
        )

    async def __aenter__(self) -> EndpointClient:
        await self._require_listener()
        return self

    async def _require_listener(self) -> None:
        """AesError where nothing answers at the address: every request would wait through all its retries."""
        address = urlsplit(self.config.url)
        if getproxies():
            return  # the proxy connects
        port = address.port or (443 if address.scheme == "https" else 80)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                _, writer = await asyncio.open_connection(address.hostname, port)
        except (OSError, TimeoutError) as error:
            reason = getattr(error, "strerror", None) or "no answer"
            raise AesError(
                f"nothing listens at {self.config.url}: {reason}", fix="start the server, or correct the address"
            ) from error
        writer.close()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def ask(self, messages: list[dict[str, Any]], fields: Mapping[str, Any] | None = None) -> Answer:
        """One answer, with retries. AesError where no request can succeed (key, model, address).

        fields: further fields of the request; those of OPTIONAL_FIELDS that the server does not know are left out.
        """
        used = _Used()
        trouble = "was never sent"
        for attempt in range(self.config.retries + 1):
            async with self.pace.turn():
                requested_wait: float | None = None
                sent = {name: value for name, value in (fields or {}).items() if name not in self._left_out}
                try:
                    async with asyncio.timeout(self.config.timeout):
                        reply = await self._client.chat.completions.create(
                            model=self.config.model,
                            messages=messages,  # type: ignore[arg-type]  # plain dictionaries of the right shape
                            temperature=self.config.temperature,
                            extra_body={self._limit: self.config.max_tokens, **sent},
                        )
                    answer = _read(reply, used)
                    if answer is not None:
                        self.pace.went_well(used.tokens_in + used.tokens_out)
                        return answer
                    failure, trouble = self._complaint(reply)
                    if failure is not None:
                        return used.failed(failure)
                except openai.APIStatusError as error:
                    if "max_completion_tokens" in str(error.message) and self._limit == "max_tokens":
                        self._limit = "max_completion_tokens"
                        continue
                    if error.status_code in (400, 422) and self._leaves_out(str(error.message), sent):
                        continue
                    failure = _final(error.status_code, f"{error.code or ''} {error.message}", self.config)
                    if failure is not None:
                        return used.failed(self._without_key(failure))
                    trouble = f"HTTP {error.status_code}"
                    requested_wait = retry_after(error.response.headers)
                    if error.status_code in OVERLOAD_STATUS:
                        self.pace.too_much(requested_wait or 0.0)
                except (openai.APIError, TimeoutError, *MALFORMED_ANSWER) as error:
                    trouble = self._without_key(f"{type(error).__name__}: {str(error)[:120]}")
            if attempt < self.config.retries:
                await asyncio.sleep(max(requested_wait or 0.0, backoff(attempt)))
        return used.failed(f"unreachable: {trouble}, {self.config.retries + 1} tries")

    def _leaves_out(self, message: str, sent: Mapping[str, Any]) -> bool:
        """Whether the server refused a request for an optional field, which is then left out of all requests."""
        names = {name for name in OPTIONAL_FIELDS if name in sent and re.search(rf"\b{name}\b", message)}
        if new := names - self._left_out:
            what = self._without_key(f"does not take {', '.join(sorted(new))}, and is asked without: {message[:120]}")
            say(f"{self.config.url} {what}")
        self._left_out |= names
        return bool(names)

    def _complaint(self, reply: Any) -> tuple[str | None, str]:
        """A final failure, or None and the reason to try again. Some services send their errors with HTTP 200."""
        error = getattr(reply, "error", None)
        if not isinstance(error, dict):
            return None, "an empty or broken answer"
        status = error["code"] if isinstance(error.get("code"), int) else 0
        failure = _final(status, f"{error.get('code') or ''} {error.get('message') or ''}", self.config)
        if status in OVERLOAD_STATUS:
            self.pace.too_much(0.0)
        trouble = f"an error as the answer: {str(error)[:120]}"
        return self._without_key(failure) if failure else None, self._without_key(trouble)

    def _without_key(self, text: str) -> str:
        """A server's message without the key, which some repeat: the message goes into a file."""
        return text if self._key == PLACEHOLDER_KEY else text.replace(self._key, "***")


def only_model(url: str, *, key_variable: str = KEY_VARIABLE) -> str:
    """The name of the one model of a server. AesError where there are several, and where it does not answer."""
    key = os.environ.get(key_variable, "").strip() or PLACEHOLDER_KEY
    try:
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=4 * PROBE_SECONDS) as client:
            names = [model.id for model in client.models.list()]
    except (openai.APIError, *MALFORMED_ANSWER) as error:
        reason = str(error)[:120].replace(key, "***")
        raise AesError(
            f"{url} does not list its models: {reason}",
            fix="check that the server runs, and that the address ends in /v1; or name the model: URL#MODEL",
        ) from error
    if len(names) != 1:
        raise AesError(
            f"{url} has {len(names)} models: {', '.join(names)[:200]}",
            fix="name one: URL#MODEL, as the server calls it",
        )
    return names[0]


def is_content_filter(message: str) -> bool:
    """Whether a service's message is from its content filter."""
    return any(code in message.lower() for code in CONTENT_FILTER_CODES)


def parse_completion(body: dict[str, Any]) -> Answer:
    """The answer in a completion from a file. An empty one is a refusal, because it cannot be retried."""
    if "error" in body and is_content_filter(str(body["error"])):
        return Answer(None, "filtered: the service's content filter", 0, 0)
    try:
        answer = _read(ChatCompletion.construct(**body), _Used())
    except MALFORMED_ANSWER:
        answer = None
    return answer or Answer(None, "refused: the answer is empty or broken", 0, 0)


def _read(reply: Any, used: _Used) -> Answer | None:
    """The answer in a reply; None where it is empty and should be tried again."""
    usage = getattr(reply, "usage", None)
    used.tokens_in += _tokens(usage, "prompt_tokens")
    used.tokens_out += _tokens(usage, "completion_tokens")
    choice = reply.choices[0] if isinstance(reply.choices, list) and reply.choices else None
    if choice is None or choice.message is None:
        return None
    if choice.finish_reason == "content_filter":
        return used.failed("filtered: the service's content filter stopped the answer")
    if choice.message.refusal:
        return used.failed(f"refused: {str(choice.message.refusal)[:200]}")
    text = choice.message.content
    if isinstance(text, list):  # some servers answer in parts
        text = "".join(part["text"] for part in text if part.get("type") == "text")
    tokens = _read_tokens(choice)
    if not isinstance(text, str) or not (text.strip() or tokens):
        return None
    return Answer(text.strip(), None, used.tokens_in, used.tokens_out, choice.finish_reason, tokens)


def _read_tokens(choice: Any) -> tuple[Token, ...] | None:
    """The tokens of an answer with the probabilities that the server lists; None where it lists none."""
    listed = getattr(getattr(choice, "logprobs", None), "content", None)
    if not isinstance(listed, list) or not listed:
        return None
    return tuple(
        Token(
            entry.token,
            math.exp(entry.logprob),
            {each.token: math.exp(each.logprob) for each in entry.top_logprobs or () if each.logprob > ABSENT},
        )
        for entry in listed
    )


def _tokens(usage: Any, name: str) -> int:
    """A count of tokens; 0 where the server gives no valid one."""
    count = getattr(usage, name, None)
    return count if isinstance(count, int) else 0


def _final(status: int, message: str, config: EndpointConfig) -> str | None:
    """Why this request must not be tried again; None where it may. AesError where no request can succeed."""
    if is_content_filter(message):
        return f"filtered: {message.strip()[:200]}"
    if status in (401, 403) or (status == 400 and "api key" in message.lower().replace("_", " ")):
        raise AesError(
            f"{config.url} refuses the key in {config.key_variable} (HTTP {status})",
            fix=f"export {config.key_variable}=… with a key for that service; the answers so far are kept",
        ) from None
    if status == 404:
        raise AesError(
            f"{config.url} has no model {config.model}, or the address is wrong (HTTP 404)",
            fix="check the address, which ends in /v1, and the name of the model",
        ) from None
    if status == 402 or "insufficient_quota" in message.lower():
        raise AesError(
            f"{config.url} says that the account has no credit left", fix="add credit; the answers so far are kept"
        ) from None
    if status in (400, 413, 415, 422):
        return f"rejected: HTTP {status}, {message.strip()[:200]}"
    return None
