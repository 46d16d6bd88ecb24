"""Pictures in, predictions out: what scoring, evaluation and validation during training all call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev

from PIL import Image

from aesr1.contract import Judgement, parse_reply, reply_prefix, reply_until_score
from aesr1.errors import AesError
from aesr1.images import open_image
from aesr1.records import Prediction
from aesr1.vlm import Vlm, expect_scores, generate


@dataclass(frozen=True)
class PredictSettings:
    """How to score. Deterministic by default; `samples` > 0 asks for that many replies at `temperature` instead."""

    batch_size: int = 16
    samples: int = 0
    temperature: float = 0.6  # the paper's, used with samples alone
    max_new_tokens: int = 512
    seed: int = 0


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
                pictures.append(
                    open_image(image, max_pixels=vlm.max_pixels)
                    if not isinstance(image, Image.Image)
                    else image.convert("RGB")
                )
                rows.append(None)
            except AesError as error:
                rows.append(_row(vlm, image, error=error.problem))
        scored = iter(_scored(vlm, pictures, settings) if pictures else [])
        for image, row in zip(batch, rows, strict=True):
            yield row if row is not None else replace(next(scored), image=_name(image))


def _scored(vlm: Vlm, pictures: list[Image.Image], settings: PredictSettings) -> list[Prediction]:
    if settings.samples:
        return _sampled(vlm, pictures, settings)
    replies = [texts[0] for texts in generate(vlm, pictures, max_new_tokens=settings.max_new_tokens)]
    judged = [parse_reply(reply) for reply in replies]
    prefixes = [
        reply_until_score("") if judgement is None else reply_prefix(reply) or ""
        for reply, judgement in zip(replies, judged, strict=True)
    ]
    return [
        _row(vlm, "", score=expected.score, spread=expected.spread, judgement=judgement, reply=reply)
        for reply, judgement, expected in zip(replies, judged, expect_scores(vlm, pictures, prefixes), strict=True)
    ]


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
            rows.append(_row(vlm, "", reply=replies[0], error=f"none of {len(replies)} replies was readable"))
            continue
        scores = [judgement.score for judgement, _ in readable]
        mean = fmean(scores)
        judgement, reply = min(readable, key=lambda pair: abs(pair[0].score - mean))
        rows.append(_row(vlm, "", score=mean, spread=pstdev(scores), judgement=judgement, reply=reply))
    return rows


def _row(
    vlm: Vlm,
    image: str | Path | Image.Image,
    *,
    score: float | None = None,
    spread: float | None = None,
    judgement: Judgement | None = None,
    reply: str = "",
    error: str | None = None,
) -> Prediction:
    return Prediction(
        image=_name(image),
        score=score,
        spread=spread,
        readable=judgement is not None,
        reasoning=judgement.reasoning if judgement else None,
        reply=reply,
        model=vlm.name,
        revision=vlm.revision,
        error=error,
    )


def _name(image: str | Path | Image.Image) -> str:
    """Where a picture lies; one that was handed over in memory has no name unless it came from a file."""
    return str(getattr(image, "filename", "")) if isinstance(image, Image.Image) else str(Path(image).absolute())
