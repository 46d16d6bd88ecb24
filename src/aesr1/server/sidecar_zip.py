"""XMP sidecars of scored pictures as a zip file, merged with the sidecars that a client has already."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from aesr1.app.xmp_sidecar import InFile, write_sidecars
from aesr1.errors import AesError
from aesr1.records import Prediction

if TYPE_CHECKING:
    from starlette.datastructures import FormData

MOST_ROWS = 10_000
LONGEST_NAME = 500


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
FORM_SCHEMA = {
    "type": "object",
    "required": ["rows"],
    "additionalProperties": False,
    "properties": {
        "rows": {"type": "string", "description": f"a JSON list of {list(SidecarRow.model_fields)}"},
        "sidecars": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "description": "existing sidecars, each with its relative path as file name",
        },
    },
}


async def parse_sidecars(form: FormData) -> tuple[list[SidecarRow], dict[str, bytes]]:
    """The rows of a form, and its sidecars by path. AesError says what is wrong."""
    from starlette.datastructures import UploadFile

    rows = form.get("rows")
    try:
        parsed = ROWS.validate_json(rows if isinstance(rows, str) else "")
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]["msg"]
        raise AesError(f"rows: {problem[:200]}", fix="send them as /openapi.json says") from error
    files = [each for each in form.getlist("sidecars") if isinstance(each, UploadFile)]
    sidecars = {each.filename or "": await each.read() for each in files}
    for name in (*(row.name for row in parsed), *sidecars):
        _require_relative(name)
    return parsed, sidecars


def zip_sidecars(rows: Sequence[SidecarRow], sidecars: Mapping[str, bytes], model: str, revision: str) -> bytes:
    """A zip file of the new and the changed sidecars, by the rules of `write_sidecars`.

    Those that cannot be changed are named in not-written.txt. AesError where the XMP library is missing.
    """
    with TemporaryDirectory(prefix="aesr1-") as temporary:
        folder, metadata, predictions = Path(temporary), {}, []
        try:
            for name, existing in sidecars.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(existing)
            for row in rows:
                (folder / row.name).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"a name cannot be used: {error.strerror}"
            raise AesError(problem, fix="give each file another name than the folders") from error
        for row in rows:
            image = folder / row.name
            metadata[str(image)] = InFile(row.has_rating, row.has_description)
            predictions.append(_prediction(str(image), row, model, revision))
        problems = write_sidecars(predictions, metadata=metadata).problems
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(folder.rglob("*.xmp")):
                relative = path.relative_to(folder).as_posix()
                if sidecars.get(relative) != path.read_bytes():
                    file.write(path, relative)
            if problems:
                file.writestr("not-written.txt", "\n".join(problems).replace(f"{folder}/", ""))
        return content.getvalue()


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


def _require_relative(name: str) -> None:
    """AesError for a name that would lie outside of the folder."""
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or any(letter in name for letter in "\\\0:")
    if outside or not path.parts:
        raise AesError(f"{name[:80]!r} is no relative path", fix="name files relative to their folder, with /")
