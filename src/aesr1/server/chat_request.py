"""Parses and checks a chat completion request and opens its picture."""

from __future__ import annotations

import json
import random
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from aesr1.errors import AesError
from aesr1.server.errors import HttpRefusal
from aesr1.server.request_picture import picture_at
from aesr1.server.settings import ServeConfig

if TYPE_CHECKING:
    from PIL import Image

    from aesr1.model.load import Vlm

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Roles of a request, and what a chat template calls them."""
NEUTRAL_VALUES = {
    "stream": False,
    "top_p": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logprobs": False,
    "tools": [],
    "response_format": {"type": "text"},
}
"""Fields that are not supported, with the value that has no effect, which some clients always send."""
SUPPORTED = frozenset({"messages", "model", "temperature", "max_tokens", "max_completion_tokens", "n", "seed", "stop"})
WITHOUT_EFFECT = frozenset({"user", "metadata", "store", "service_tier", "stream_options"})
MAX_TEXT, MAX_REPLIES, MAX_STOPS = 16_000, 8, 4
MAX_MESSAGES, MAX_PARTS = 64, 64
SCHEMA = {
    "type": "object",
    "required": ["model", "messages"],
    "properties": {
        "model": {"type": "string"},
        "messages": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_MESSAGES,
            "description": "Exactly one part of all messages is a picture.",
            "items": {
                "type": "object",
                "required": ["role", "content"],
                "properties": {
                    "role": {"enum": list(ROLES)},
                    "content": {
                        "oneOf": [
                            {"type": "string"},
                            {
                                "type": "array",
                                "maxItems": MAX_PARTS,
                                "items": {"type": "object", "required": ["type"]},
                            },
                        ]
                    },
                },
            },
        },
        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
        "max_tokens": {"type": "integer", "minimum": 1},
        "max_completion_tokens": {"type": "integer", "minimum": 1},
        "n": {"type": "integer", "minimum": 1, "maximum": MAX_REPLIES},
        "seed": {"type": "integer"},
        "stop": {"type": ["string", "array"], "items": {"type": "string"}, "maxItems": MAX_STOPS},
    },
}
"""What the API's description says of a request; `parse_chat_request` checks more, and says what is wrong."""


@dataclass(frozen=True)
class ReplyRequest:
    """One requested reply: a prompt in the model's chat template, and its picture."""

    prompt: str
    image: Image.Image
    temperature: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int = 0
    prompt_tokens: int = 0  # of the text and the picture


class GeneratedReply(NamedTuple):
    """A raw reply, why it ended ("stop" or "length"), and its true counts of tokens, those of the picture too."""

    text: str
    finish: str
    prompt_tokens: int
    reply_tokens: int


def parse_chat_request(body: bytes, vlm: Vlm, config: ServeConfig) -> list[ReplyRequest]:
    """The n replies that the body of a request asks for. AesError names what is wrong; nothing is guessed."""
    from aesr1.model.processor import picture_length

    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AesError("the request is not JSON", fix="send an OpenAI chat completion request") from error
    if not isinstance(fields, dict):
        raise AesError("the request is not a JSON object", fix="send an OpenAI chat completion request")
    if fields.get("model") != vlm.name:
        other = repr(fields.get("model"))[:80]
        fix = f"ask for model {vlm.name}"
        raise HttpRefusal(f"this server has no model {other}", fix=fix, status=404, code="model_not_found")
    for name in fields.keys() - SUPPORTED - WITHOUT_EFFECT:
        if fields[name] is not None and (name not in NEUTRAL_VALUES or fields[name] != NEUTRAL_VALUES[name]):
            raise AesError(f"{name[:40]!r} is not supported", fix="leave it out")
    stop = fields.get("stop") or []
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise AesError(
            "stop is neither text nor a list of texts", fix=f"give up to {MAX_STOPS} texts that are not empty"
        )
    longest = "max_completion_tokens" if fields.get("max_completion_tokens") is not None else "max_tokens"
    max_tokens = int(_number(fields, longest, config.max_new_tokens, 1, 10**9, whole=True))
    temperature = float(_number(fields, "temperature", 1.0, 0, 2))
    replies = int(_number(fields, "n", 1, 1, MAX_REPLIES, whole=True))
    seed = _number(fields, "seed", secrets.randbits(63), -(2**63), 2**63, whole=True)
    prompt, url = _read_messages(fields.get("messages"), vlm)
    text_tokens = _count_tokens(prompt, vlm, config.max_prompt_tokens)
    picture = picture_at(url, config)
    reply = ReplyRequest(
        prompt,
        picture,
        temperature,
        min(max_tokens, config.max_new_tokens),
        tuple(stops),
        prompt_tokens=text_tokens + picture_length(vlm.processor, picture.size),
    )
    return [replace(reply, seed=random.Random(f"{seed}/{number}").getrandbits(63)) for number in range(replies)]


def _number(fields: dict[str, Any], name: str, default: float, low: float, high: float, whole: bool = False) -> float:
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise AesError(f"{name} is {str(value)[:40]!r}", fix=f"give {kind} from {low} to {high}")
    return value


def _read_messages(messages: Any, vlm: Vlm) -> tuple[str, str]:
    """The messages in the model's chat template, and the address of their one picture.

    The picture comes before its message's text, whichever the client put first: so every model of ours saw it.
    """
    from jinja2 import TemplateError

    conversation, texts, urls = [], list[str](), list[str]()
    fix = f"send messages, each with a role ({', '.join(ROLES)}) and content, a text or a list of parts"
    if not isinstance(messages, list) or not messages:
        raise AesError("the request has no messages", fix=fix)
    if len(messages) > MAX_MESSAGES:
        raise AesError(f"the request has {len(messages):,} messages", fix=f"send at most {MAX_MESSAGES}")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise AesError("a message has no role, or one that is not known here", fix=fix)
        content = message.get("content")
        if not isinstance(content, str | list):
            raise AesError("a message has no content", fix=fix)
        if isinstance(content, list) and len(content) > MAX_PARTS:
            raise AesError(f"a message has {len(content):,} parts", fix=f"send at most {MAX_PARTS}")
        pictures, words = len(urls), len(texts)
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            match part:
                case {"type": "text", "text": str(text)}:
                    texts.append(text)
                case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
                    urls.append(url)
                case _:
                    raise AesError(
                        "a part of a message is neither text nor image_url", fix="send parts of these two types"
                    )
        parts = [{"type": "image"}] * (len(urls) - pictures) + [{"type": "text", "text": t} for t in texts[words:]]
        conversation.append({"role": ROLES[message["role"]], "content": parts})
    if len(urls) != 1:
        raise AesError(f"the messages hold {len(urls)} pictures", fix="send exactly one image_url part")
    _check_text("".join(texts), vlm)
    try:
        prompt = vlm.processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        raise AesError(
            f"the model's chat template refuses these messages: {error}", fix="send one user message"
        ) from error
    return str(prompt), urls[0]


def _check_text(text: str, vlm: Vlm) -> None:
    """AesError where a text cannot be a prompt. A picture token in it would refer to a missing picture."""
    if len(text) > MAX_TEXT:
        raise AesError(f"the messages' text has {len(text):,} characters", fix=f"send at most {MAX_TEXT:,}")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise AesError("the messages' text is not Unicode (a lone surrogate)", fix="send whole characters")
    marks = {str(token) for token in vlm.processor.tokenizer.added_tokens_decoder.values() if token.special}
    marks |= {getattr(vlm.processor, "image_token", None) or "<image>"}
    special = sorted(mark for mark in marks if mark in text)
    if special:
        raise AesError(f"the messages' text holds {special[0]}, a special token of the model", fix="leave it out")


def _count_tokens(prompt: str, vlm: Vlm, most: int) -> int:
    """AesError where a prompt is long: reading it would hold up all other clients. A few letters can be many tokens."""
    count = len(vlm.processor.tokenizer(prompt, add_special_tokens=False)["input_ids"])
    if count > most:
        raise AesError(f"the messages' text has {count:,} tokens", fix=f"send at most {most:,}")
    return count
