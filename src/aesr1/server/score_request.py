"""A request for scores, POST /v1/score: what a client sends, and what it gets."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from aesr1.app.reference_scores import Reference, with_meaning
from aesr1.app.xmp_sidecar import InFile, in_file
from aesr1.errors import AesError
from aesr1.images.data_url import data_url
from aesr1.records import Prediction
from aesr1.server.request_picture import picture_at, picture_in
from aesr1.server.settings import ServeConfig

if TYPE_CHECKING:
    from PIL import Image
    from starlette.datastructures import FormData

    from aesr1.model.predict import PredictSettings

MAX_THUMBNAIL = 1024
MAX_FIELD = 100
"""Bytes of a field of the form that is no file."""
MEND = "send what /openapi.json says"
MEANING = ("score", "score_std", "score_10", "stars", "percentile", "reference", "readable", "reasoning", "error")
"""Fields of a `Prediction` that a client gets for each picture; the others are the same for all."""


class ScoreOptions(BaseModel):
    """What is wanted of each picture."""

    model_config = ConfigDict(extra="forbid")

    reasons: Annotated[bool, Field(description="false: the score alone, faster")] = True
    thumbnail: Annotated[
        int, Field(ge=0, le=MAX_THUMBNAIL, description="longest side in pixels of a JPEG that comes back; 0: none")
    ] = 0


class ScoreBody(ScoreOptions):
    """A request in JSON."""

    images: Annotated[
        list[str], Field(min_length=1, description="data URLs; or addresses on servers that this one may fetch from")
    ]


FORM_SCHEMA = {
    "type": "object",
    "required": ["images"],
    "additionalProperties": False,
    "properties": {
        "images": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}},
        **ScoreOptions.model_json_schema()["properties"],
    },
}
"""The same request as a form with files, for the API's description."""


@dataclass(frozen=True)
class ScoredPicture:
    """The answer about one picture. One that cannot be read or scored has an error and no score."""

    index: int  # of the request's pictures, from 0
    name: str | None  # of the file that was sent
    score: float | None
    score_std: float | None
    score_10: float | None
    stars: int | None
    percentile: float | None
    reference: str | None
    readable: bool | None
    reasoning: str | None
    error: str | None
    has_rating: bool  # somebody's stars stand in the file
    has_description: bool  # somebody's caption stands in the file
    thumbnail: str | None  # a data URL


@dataclass(frozen=True)
class ScoreAnswer:
    """The answer about all pictures of a request, in its order."""

    model: str
    revision: str
    decoding: str  # how scores are read, and the picture size cap
    contract: str
    aesr1: str
    predictions: list[ScoredPicture]


NOTHING = InFile()


@dataclass(frozen=True)
class ScoreRequest:
    """A picture to score, with reasons or without."""

    image: Image.Image
    reasons: bool = True


@dataclass(frozen=True)
class OpenedPicture:
    """A picture of a request before it is scored, or why it cannot be."""

    index: int
    name: str | None = None
    image: Image.Image | None = None
    error: str | None = None
    in_file: InFile = NOTHING
    thumbnail: str | None = None

    def scored(self, row: Prediction | None, reference: Reference | None) -> ScoredPicture:
        """The answer about it; `row` is None where it could not be opened."""
        row = row and with_meaning(row, reference)
        meaning: dict[str, Any] = {name: getattr(row, name) if row else None for name in MEANING}
        return ScoredPicture(
            self.index,
            self.name,
            **{**meaning, "error": self.error or meaning["error"]},
            has_rating=self.in_file.rating,
            has_description=self.in_file.description,
            thumbnail=self.thumbnail,
        )


def score_settings(config: ServeConfig, *, reasons: bool) -> PredictSettings:
    """How the server reads scores."""
    from aesr1.model.predict import PredictSettings

    return PredictSettings(batch_size=config.max_batch, max_new_tokens=config.max_new_tokens, fast=not reasons)


def parse_body(body: bytes, config: ServeConfig) -> tuple[list[str], ScoreOptions]:
    """The addresses of the pictures in a request of JSON, and what is wanted of them. AesError says what is wrong."""
    try:
        parsed = ScoreBody.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise _problem(error) from error
    _limit(len(parsed.images), config)
    return parsed.images, ScoreOptions(reasons=parsed.reasons, thumbnail=parsed.thumbnail)


def parse_form(form: FormData, config: ServeConfig) -> tuple[list[tuple[str, BinaryIO]], ScoreOptions]:
    """The names and files of the pictures in a form, and what is wanted of them. AesError says what is wrong."""
    from starlette.datastructures import UploadFile

    files = [value for name, value in form.multi_items() if name == "images" and isinstance(value, UploadFile)]
    try:
        fields = {name: from_json(value) for name, value in form.multi_items() if isinstance(value, str)}
        options = ScoreOptions.model_validate(fields, strict=True)
    except ValidationError as error:
        raise _problem(error) from error
    except ValueError as error:
        raise AesError("a field of the form is neither true, false nor a number", fix=MEND) from error
    if not files:
        raise AesError("the form has no pictures", fix="send files as the field images")
    _limit(len(files), config)
    return [(each.filename or "", each.file) for each in files], options


def open_picture(
    index: int, source: str | tuple[str, bytes], options: ScoreOptions, config: ServeConfig
) -> OpenedPicture:
    """Open one picture of a request, by its address, or the name and bytes of its file. Its error is in the result."""
    name, metadata = None, NOTHING
    try:
        if isinstance(source, str):
            image = picture_at(source, config)
        else:
            name, raw = source
            image = picture_in(BytesIO(raw), name, config)
            metadata = in_file(BytesIO(raw))
    except AesError as error:
        return OpenedPicture(index, name, error=error.problem)
    thumbnail = None
    if options.thumbnail:
        small = image.copy()
        small.thumbnail((options.thumbnail, options.thumbnail))
        thumbnail = data_url(small)
    return OpenedPicture(index, name, image, None, metadata, thumbnail)


def _limit(pictures: int, config: ServeConfig) -> None:
    if pictures > config.max_pictures:
        raise AesError(f"the request has {pictures:,} pictures", fix=f"send at most {config.max_pictures} at a time")


def _problem(error: ValidationError) -> AesError:
    """The first thing that pydantic finds wrong, without the value, which may be a whole picture."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"])) or "the request"
    return AesError(f"{where[:80]}: {first['msg'][:200]}", fix=MEND)
