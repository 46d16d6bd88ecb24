"""The prompts of teacher and judges, and requests with them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from aesr1.aescot.settings import JUDGES, SCORER, TEACHER
from aesr1.contract import PROMPT
from aesr1.errors import AesError

SEES_THE_PICTURE = ("fact",)


@cache
def template(name: str) -> str:
    """The text of a template: one of ours by its version, or a user's .txt file."""
    if name == SCORER:
        return PROMPT
    if name.endswith(".txt"):
        path = Path(name)
        if not path.is_file():
            raise AesError(f"there is no template {name}", fix=f"pass {TEACHER}, {SCORER} or a .txt file")
        return path.read_text(encoding="utf-8")
    file = files("aesr1.aescot") / "prompts" / f"{name}.txt"
    if not file.is_file():
        raise AesError(f"there is no template {name}", fix=f"pass {TEACHER}, {SCORER} or a .txt file")
    return file.read_text(encoding="utf-8")


def version(name: str) -> str:
    """The name of a template in rows: the version of ours, or name and hash of a user's."""
    if not name.endswith(".txt"):
        return name
    return f"{Path(name).stem}-{hashlib.blake2b(template(name).encode(), digest_size=4).hexdigest()}"


def teacher_messages(url: str, score: float, *, name: str = TEACHER) -> list[dict[str, Any]]:
    """The request for a critique: the picture, and the human score (0–1) if the template has {score}."""
    return _messages(template(name).replace("{score}", f"{score:.2f}"), url)


def judge_messages(judge: str, text: str, url: str) -> list[dict[str, Any]]:
    """The request to a judge about a critique. Only the judge of facts gets the picture."""
    question = template(JUDGES[judge]).replace("{text}", text)
    return _messages(question, url if judge in SEES_THE_PICTURE else None)


def _messages(text: str, url: str | None) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if url is not None:
        parts.insert(0, {"type": "image_url", "image_url": {"url": url}})
    return [{"role": "user", "content": parts}]
