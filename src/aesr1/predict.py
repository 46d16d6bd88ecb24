"""Pictures in, predictions out: what scoring, evaluation and validation during training all call."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from PIL import Image

from aesr1.contract import Judgement, parse_reply, reply_prefix, reply_until_score
from aesr1.errors import AesError
from aesr1.expectation import expect_scores
from aesr1.images import open_image, prepare
from aesr1.records import Prediction, read_rows, write_rows
from aesr1.vlm import Vlm, generate


@dataclass(frozen=True)
class PredictSettings:
    """How to score. Deterministic by default; `samples` > 0 asks for that many replies at `temperature` instead."""

    batch_size: int = 16
    samples: int = 0
    temperature: float = 0.6  # the paper's, used with samples alone
    max_new_tokens: int = 512
    seed: int = 0  # of the samples; a batch draws together, so their scores depend on batch_size too

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.samples < 0 or self.max_new_tokens < 1:
            raise AesError(
                f"these settings score nothing: {self}", fix="batch_size and max_new_tokens begin at 1, samples at 0"
            )

    def describe(self, max_pixels: int) -> str:
        """How scores are read, for every row: numbers read in two ways must not be compared unawares."""
        way = (
            f"mean of {self.samples} at temperature {self.temperature:g}, seed {self.seed}"
            if self.samples
            else "expectation"
        )
        return f"{way}; at most {self.max_new_tokens} tokens, {max_pixels} pixels"


def predict(
    vlm: Vlm, images: Sequence[str | Path | Image.Image], settings: PredictSettings | None = None
) -> Iterator[Prediction]:
    """One prediction an image, in order. A picture that cannot be read gives a row with its error.

    Default: one greedy reply, and as score the expectation over the score tokens after its reasoning. Where the
    reply is unreadable the model is asked once more with the answer forced, and the row says `readable: false`.
    With samples: the mean and standard deviation of the readable replies' scores, and the reasoning of the
    reply nearest to the mean.
    """
    settings = settings or PredictSettings()
    for start in range(0, len(images), settings.batch_size):
        batch = images[start : start + settings.batch_size]
        rows: list[Prediction | None] = []
        pictures: list[Image.Image] = []
        for image in batch:
            try:
                pictures.append(_opened(image, vlm.max_pixels))
                rows.append(None)
            except AesError as error:
                rows.append(Prediction(**_unscored(vlm, settings, error.problem), image=_name(image)))
        scored = iter(_scored(vlm, pictures, settings) if pictures else [])
        for image, row in zip(batch, rows, strict=True):
            yield row if row is not None else replace(next(scored), image=_name(image))


def _opened(image: str | Path | Image.Image, max_pixels: int) -> Image.Image:
    if not isinstance(image, Image.Image):
        return open_image(image, max_pixels=max_pixels)
    try:
        return prepare(image, max_pixels=max_pixels)
    except (OSError, ValueError, SyntaxError) as error:  # a lazy file is read only now
        raise AesError(f"the picture cannot be read: {error}", fix="leave it out") from error


def _scored(vlm: Vlm, pictures: list[Image.Image], settings: PredictSettings) -> list[Prediction]:
    if settings.samples:
        return _sampled(vlm, pictures, settings)
    replies = [texts[0] for texts in generate(vlm, pictures, max_new_tokens=settings.max_new_tokens)]
    judged = [parse_reply(reply) for reply in replies]
    prefixes = [
        reply_until_score("") if judgement is None else reply_prefix(reply) or ""
        for reply, judgement in zip(replies, judged, strict=True)
    ]
    rows = []
    for reply, judgement, (score, spread) in zip(replies, judged, expect_scores(vlm, pictures, prefixes), strict=True):
        row = Prediction(**_unscored(vlm, settings, None, judgement, reply), image="")
        broken = math.isnan(score)
        error = "the model gives no probabilities (NaN): its weights are broken" if broken else None
        rows.append(replace(row, score=None if broken else score, spread=None if broken else spread, error=error))
    return rows


def _sampled(vlm: Vlm, pictures: list[Image.Image], settings: PredictSettings) -> list[Prediction]:
    rows = []
    for replies in generate(
        vlm,
        pictures,
        samples=settings.samples,
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        seed=settings.seed,
    ):
        readable = [(judgement, reply) for reply in replies if (judgement := parse_reply(reply)) is not None]
        if not readable:
            problem = f"none of {len(replies)} replies was readable"
            rows.append(Prediction(**_unscored(vlm, settings, problem, None, replies[0]), image=""))
            continue
        scores = [judgement.score for judgement, _ in readable]
        mean = fmean(scores)
        judgement, reply = min(readable, key=lambda pair: abs(pair[0].score - mean))
        row = Prediction(**_unscored(vlm, settings, None, judgement, reply), image="")
        rows.append(replace(row, score=mean, spread=pstdev(scores)))
    return rows


def _unscored(
    vlm: Vlm, settings: PredictSettings, error: str | None, judgement: Judgement | None = None, reply: str = ""
) -> dict[str, Any]:
    """A prediction's fields but its image, without a score yet."""
    return {
        "score": None,
        "spread": None,
        "readable": judgement is not None,
        "reasoning": judgement.reasoning if judgement else None,
        "reply": reply,
        "model": vlm.name,
        "revision": vlm.revision,
        "decoding": settings.describe(vlm.max_pixels),
        "error": error,
    }


def earlier(path: Path, vlm: Vlm, settings: PredictSettings) -> dict[str, Prediction]:
    """The rows of an interrupted run by image; failed ones are taken out of the file, to be tried again.

    AesError where the file was written by another model or in another way: two kinds of scores must not mix.
    """
    if not path.exists():
        return {}
    rows = read_rows(path, Prediction)
    ours = (vlm.name, vlm.revision, settings.describe(vlm.max_pixels))
    others = sorted({(row.model, row.revision, row.decoding) for row in rows} - {ours})
    if others:
        raise AesError(
            f"{path} was written by {', '.join(others[0])}; now it is {', '.join(ours)}", fix="choose another file"
        )
    kept = [row for row in rows if row.error is None]
    if len(kept) < len(rows):
        write_rows(path, kept)
    return {row.image: row for row in kept}


def _name(image: str | Path | Image.Image) -> str:
    """Where a picture lies; one that was handed over in memory has no name unless it came from a file."""
    return str(getattr(image, "filename", "")) if isinstance(image, Image.Image) else str(Path(image).absolute())
