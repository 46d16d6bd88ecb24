"""What teacher and judges are asked: versioned templates, their pictures as data URLs."""

from __future__ import annotations

import base64
import io
from functools import cache
from importlib.resources import files
from typing import Any

from PIL import Image

TEACHER = "teacher-1"
"""The template in use; a changed text gets a new file and number, because every row names it."""
JUDGES = {"leak": "leak-1", "align": "align-1", "fact": "fact-1"}
SEES_THE_PICTURE = ("fact",)
JPEG_QUALITY = 90


@cache
def template(version: str) -> str:
    """The text of a template."""
    return (files("aesr1.aescot") / "prompts" / f"{version}.txt").read_text(encoding="utf-8")


def data_url(picture: Image.Image) -> str:
    """A picture as JPEG in a data URL, as chat requests carry it."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def teacher_messages(url: str, score: float) -> list[dict[str, Any]]:
    """The request for a critique: the picture, and the human score 0–1 as a secret."""
    return _messages(template(TEACHER).replace("{score}", f"{score:.2f}"), url)


def judge_messages(judge: str, text: str, url: str) -> list[dict[str, Any]]:
    """The request for a judge's answer about a critique; only the judge of facts sees the picture."""
    asked = template(JUDGES[judge]).replace("{text}", text)
    return _messages(asked, url if judge in SEES_THE_PICTURE else None)


def _messages(text: str, url: str | None) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if url is not None:
        parts.insert(0, {"type": "image_url", "image_url": {"url": url}})
    return [{"role": "user", "content": parts}]
