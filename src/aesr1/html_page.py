"""What all HTML pages share: the base template, pictures inlined as JPEG, names of pictures, long texts, writing."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from PIL import Image

from aesr1.errors import AesError
from aesr1.images.load import open_image

JPEG_QUALITY = 82
LEAD_LETTERS = 700
"""Reasons up to this length are shown in full; the rest of longer ones is folded."""
HEAD_BYTES = 1024
"""The line that names the generator is in the first bytes of a page."""


class InlineThumbnail(NamedTuple):
    """A small picture as a data URL and its size in pixels, or why there is none: then `source` is empty."""

    source: str
    width: int
    height: int
    problem: str


def inline_thumbnail(path: str, name: str, side: int) -> InlineThumbnail:
    """A picture as a new JPEG whose longest side is at most `side` pixels, without the file's metadata.

    `name` stands for the path in the problem of a picture that cannot be opened.
    """
    try:
        picture = open_image(path, max_pixels=side**2)  # the longest side is still at least `side`
    except AesError as error:
        return InlineThumbnail("", 0, 0, error.problem.replace(path, name))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=JPEG_QUALITY, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")
    return InlineThumbnail(source, picture.width, picture.height, "")


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Each path relative to the deepest folder that holds all of them."""
    folder = os.path.commonpath([str(Path(path).parent) for path in paths]) if paths else ""
    return {path: os.path.relpath(path, folder) for path in paths}


def fold(text: str) -> tuple[str, str]:
    """The beginning of a text, cut between words if it is long, and the rest."""
    text = text.strip()
    if len(text) <= LEAD_LETTERS:
        return text, ""
    cut = text.rfind(" ", LEAD_LETTERS // 2, LEAD_LETTERS)
    cut = LEAD_LETTERS if cut < 0 else cut
    return text[:cut], text[cut:].strip()


def distinct(values: Iterable[str]) -> list[str]:
    """The different values, in the order of their first ones."""
    return list(dict.fromkeys(values))


def render_page(output: Path, template: Path, generator: str, context: Mapping[str, Any]) -> None:
    """Write a page from a template that extends base.html.j2, part by part."""
    # JSON can hold halves of surrogate pairs, which UTF-8 cannot encode: they become question marks.
    with output.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
        file.writelines(page_template(template).generate({**context, "generator": generator}))


def page_template(template: Path) -> Template:
    """A template that extends base.html.j2. All values are escaped, and a missing one is an error."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent / "templates"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["source_hash"] = _source_hash
    return environment.get_template(template.name)


def is_page(path: Path, generator: str) -> bool:
    """Whether a file is a page of this generator. A file that is none must not be overwritten."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return f'name="generator" content="{generator}"'.encode() in file.read(HEAD_BYTES)


def _source_hash(text: str) -> str:
    """A Content-Security-Policy source that allows exactly this text as an inline script or style."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") + "'"
