"""XMP sidecars of scored pictures as a zip file, merged with the sidecars that a client has already."""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from aesr1.app.xmp_sidecar import InFile, write_sidecars
from aesr1.errors import AesError
from aesr1.records import Prediction

if TYPE_CHECKING:
    from starlette.datastructures import FormData

MOST_ROWS, MOST_FOLDERS, MOST_PARTS = 10_000, 2_000, 16
LONGEST_NAME, LONGEST_PART = 500, 240
"""In letters, and in bytes of UTF-8: file systems take 255, and a sidecar's name is longer than the picture's."""
NOTES = "not-changed.txt"


class SidecarRow(BaseModel):
    """A picture, and what its sidecar gets."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME, description="relative path with /")]
    stars: Annotated[int, Field(ge=-1, le=5, description="-1: rejected by a person")]
    score: Annotated[float, Field(ge=0, le=1)]
    reasoning: Annotated[str | None, Field(max_length=20_000)] = None
    has_rating: bool = False
    has_description: bool = False


SidecarRows = Annotated[list[SidecarRow], Field(min_length=1, max_length=MOST_ROWS)]
ROWS: TypeAdapter[list[SidecarRow]] = TypeAdapter(SidecarRows)
PATHS: TypeAdapter[list[str]] = TypeAdapter(list[Annotated[str, Field(min_length=5, max_length=LONGEST_NAME)]])
FORM_SCHEMA = {
    "type": "object",
    "required": ["rows"],
    "additionalProperties": False,
    "properties": {
        "rows": {"type": "string", "description": f"a JSON list of {list(SidecarRow.model_fields)}"},
        "paths": {"type": "string", "description": "a JSON list of the relative paths of the sidecars"},
        "sidecars": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "description": "existing sidecars in the order of paths, because file names of forms lose letters",
        },
    },
}


@dataclass(frozen=True)
class SidecarForm:
    """A request for sidecars as it was received."""

    rows: str
    paths: str
    contents: tuple[bytes, ...]


async def read_form(form: FormData) -> SidecarForm:
    """The fields and files of a form."""
    from starlette.datastructures import UploadFile

    contents = [await each.read() for each in form.getlist("sidecars") if isinstance(each, UploadFile)]
    rows, paths = form.get("rows"), form.get("paths")
    return SidecarForm(str(rows or ""), paths if isinstance(paths, str) else "[]", tuple(contents))


def zip_sidecars(form: SidecarForm, model: str, revision: str) -> bytes:
    """A zip file of the new and the changed sidecars, by the rules of `write_sidecars`.

    Those that cannot be written, and how many people's ratings stay, are in not-changed.txt. AesError says what is
    wrong with the request, or that the XMP library is missing.
    """
    rows, existing = _parsed(form)
    with TemporaryDirectory(prefix="aesr1-") as temporary:
        folder = Path(temporary)
        try:
            for name, content in existing.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / _small_suffix(name)).write_bytes(content)
            for row in rows:
                (folder / row.name).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"a name cannot be used: {error.strerror}"
            raise AesError(problem, fix="give each file another name than the folders") from error
        metadata = {str(folder / row.name): InFile(row.has_rating, row.has_description) for row in rows}
        predictions = [_prediction(str(folder / row.name), row, model, revision) for row in rows]
        written = write_sidecars(predictions, metadata=metadata)
        notes = [problem.replace(f"{folder}/", "") for problem in written.problems]
        if written.kept:
            notes.append(f"{written.kept:,} pictures keep the stars that a person gave")
        names = {_small_suffix(name): name for name in existing}
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(path for path in folder.rglob("*.xmp") if path.is_file()):
                name = path.relative_to(folder).as_posix()
                if existing.get(names.get(name, name)) != path.read_bytes():
                    archive.write(path, names.get(name, name))
            if notes:
                archive.writestr(NOTES, "\n".join(notes))
        return file.getvalue()


def _parsed(form: SidecarForm) -> tuple[list[SidecarRow], dict[str, bytes]]:
    """The rows of a form, and its sidecars by path. AesError says what is wrong."""
    try:
        rows, paths = ROWS.validate_json(form.rows), PATHS.validate_json(form.paths)
        existing = dict(zip(paths, form.contents, strict=True))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]["msg"]
        raise AesError(f"rows or paths: {problem[:200]}", fix="send them as /openapi.json says") from error
    except ValueError as error:
        raise AesError("there are not as many paths as sidecars", fix="send them as /openapi.json says") from error
    names = [PurePosixPath(name) for name in (*(row.name for row in rows), *paths)]
    for name in names:
        _require_relative(name)
    if len({name.parent for name in names}) > MOST_FOLDERS:
        raise AesError("the names have too many folders", fix=f"send at most {MOST_FOLDERS:,} at a time")
    return rows, existing


def _small_suffix(name: str) -> str:
    """The name of a sidecar with the ending .xmp, however its letters are written."""
    return name[:-4] + name[-4:].lower()


def _prediction(image: str, row: SidecarRow, model: str, revision: str) -> Prediction:
    return Prediction(
        image=image,
        score=row.score,
        score_std=None,
        readable=None,
        reasoning=row.reasoning,
        reply="",
        model=model,
        revision=revision,
        decoding="",
        error=None,
        stars=row.stars,
    )


def _require_relative(path: PurePosixPath) -> None:
    """AesError for a name that would lie outside of the folder, or that file systems do not take."""
    foreign = os.name == "nt" and any(letter in str(path) for letter in "\\:")
    if path.is_absolute() or ".." in path.parts or "\0" in str(path) or foreign or not path.parts:
        raise AesError(f"{str(path)[:80]!r} is no relative path", fix="name files relative to their folder, with /")
    long = any(len(part.encode("utf-8", "replace")) > LONGEST_PART for part in path.parts)
    if long or len(path.parts) > MOST_PARTS:
        fix = f"names have at most {LONGEST_PART} bytes, and {MOST_PARTS} parts"
        raise AesError(f"{str(path)[:80]!r} is too long", fix=fix)
