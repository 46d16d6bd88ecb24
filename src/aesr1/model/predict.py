"""Pictures in, predictions out: used by scoring, evaluation and validation."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import islice, tee
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from PIL import Image

from aesr1.contract import Judgement, parse_reply, reply_prefix, reply_until_score
from aesr1.errors import AesError
from aesr1.images.load import ImageSource
from aesr1.images.prefetch import MIN_PREFETCHED, prefetch_images
from aesr1.model.generate import generate_replies, prefill_pictures
from aesr1.model.load import Vlm
from aesr1.model.processor import picture_length
from aesr1.model.score_expectation import Expectation, expect_scores, expect_scores_after
from aesr1.records import Prediction

BATCHES_SORTED_TOGETHER = 4
"""Pictures of this many batches are sorted by length together: more would save little padding and delay rows."""


@dataclass(frozen=True)
class PredictSettings:
    """How to score. Deterministic by default; `samples` > 0 asks for that many replies at `temperature` instead."""

    batch_size: int = 16
    samples: int = 0
    temperature: float = 0.6  # the paper's, used with samples alone
    max_new_tokens: int = 512
    seed: int = 0  # of the samples; a batch samples together, so scores also depend on the other pictures in it
    fast: bool = False  # no reply: the score that the model expects of a reply without reasoning

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.samples < 0 or self.max_new_tokens < 1:
            raise AesError(
                f"these settings are not valid: {self}", fix="batch_size and max_new_tokens begin at 1, samples at 0"
            )
        if self.fast and self.samples:
            raise AesError("fast scoring draws no samples", fix="leave out one of fast and samples")

    def describe(self, max_pixels: int) -> str:
        """How scores are read. It is in every row, because numbers read in two ways must not be mixed."""
        if self.fast:
            return f"expectation without reasoning; {max_pixels} pixels"
        way = (
            f"mean of {self.samples} at temperature {self.temperature:g}, seed {self.seed}"
            if self.samples
            else "expectation"
        )
        return f"{way}; at most {self.max_new_tokens} tokens, {max_pixels} pixels"


def predict(
    vlm: Vlm,
    images: Iterable[ImageSource],
    settings: PredictSettings | None = None,
    *,
    pool: Executor | None = None,
    run: Callable[[Sequence[Image.Image]], Sequence[Prediction]] | None = None,
) -> Iterator[Prediction]:
    """One prediction an image, in order. A picture that cannot be read gives a row with its error.

    Default: one greedy reply, and as score the expectation over the score tokens after its reasoning. Where the
    reply is unreadable the model is run once more with the answer forced, and the row says `readable: false`.
    Fast: no reply is written, the answer is forced after an empty reasoning; `readable: null`, no reasoning.
    With samples: the mean and standard deviation of the readable replies' scores, and the reasoning of the
    reply nearest to the mean.

    A batch holds pictures of similar length, from a few batches; `pool` opens that many early. `run` gives the rows of
    a batch in place of `score_batch`.
    """
    settings = settings or PredictSettings()

    def failed(error: str) -> Prediction:
        return _prediction(vlm, settings, error=error)

    def run_alone(pictures: Sequence[Image.Image]) -> list[Prediction]:
        return score_batch(vlm, pictures, settings)

    return predict_batches(vlm, images, run or run_alone, failed, batch_size=settings.batch_size, pool=pool)


def predict_batches(
    vlm: Vlm,
    images: Iterable[ImageSource],
    run: Callable[[Sequence[Image.Image]], Sequence[Prediction]],
    failed: Callable[[str], Prediction],
    *,
    batch_size: int,
    pool: Executor | None = None,
) -> Iterator[Prediction]:
    """One row an image, in order, by a function that scores a batch and one for a picture that cannot be read.

    Neither needs to name the picture.
    """
    window = BATCHES_SORTED_TOGETHER * batch_size
    for_names, for_pixels = tee(images)
    opened = prefetch_images(for_pixels, max_pixels=vlm.max_pixels, pool=pool, depth=max(window, MIN_PREFETCHED))
    while pictures := list(islice(opened, window)):
        paths = [_path_of(image) for image in islice(for_names, len(pictures))]
        rows = {
            index: replace(failed(picture.problem.removeprefix(f"{paths[index]} ")), image=paths[index])
            for index, picture in enumerate(pictures)
            if isinstance(picture, AesError)
        }
        next_index = 0
        for batch in _batches(vlm, pictures, batch_size):
            indices, readable = zip(*batch, strict=True)
            for index, row in zip(indices, run(readable), strict=True):
                rows[index] = replace(row, image=paths[index])
            while next_index in rows:
                yield rows[next_index]
                next_index += 1
        yield from (rows[index] for index in range(next_index, len(paths)))


def _batches(
    vlm: Vlm, pictures: Sequence[Image.Image | AesError], size: int
) -> Iterator[list[tuple[int, Image.Image]]]:
    """The opened pictures with their positions, shortest first, so that little is padded."""
    readable = [(index, picture) for index, picture in enumerate(pictures) if not isinstance(picture, AesError)]
    readable.sort(key=lambda pair: picture_length(vlm.processor, pair[1].size))
    yield from (readable[start : start + size] for start in range(0, len(readable), size))


def score_batch(vlm: Vlm, pictures: Sequence[Image.Image], settings: PredictSettings) -> list[Prediction]:
    """The rows of one batch of opened pictures, without their names."""
    if settings.samples:
        return _score_by_samples(vlm, pictures, settings)
    if settings.fast:
        replies, scores = [""] * len(pictures), expect_scores(vlm, pictures, [reply_until_score("")] * len(pictures))
        return _score_by_expectation(vlm, settings, replies, scores)
    prefilled = prefill_pictures(vlm, pictures)
    replies = [texts[0] for texts in generate_replies(vlm, prefilled, max_new_tokens=settings.max_new_tokens)]
    prefixes = [reply_until_score("") if parse_reply(reply) is None else reply_prefix(reply) or "" for reply in replies]
    return _score_by_expectation(vlm, settings, replies, expect_scores_after(vlm, prefilled, prefixes))


def _score_by_expectation(
    vlm: Vlm, settings: PredictSettings, replies: Sequence[str], scores: Sequence[Expectation]
) -> list[Prediction]:
    rows = []
    for reply, expectation in zip(replies, scores, strict=True):
        broken = math.isnan(expectation.score)
        error = "the model gives no probabilities (NaN): its weights are broken" if broken else None
        row = _prediction(vlm, settings, reply, parse_reply(reply), error=error)
        rows.append(row if broken else replace(row, score=expectation.score, score_std=expectation.score_std))
    return rows


def _score_by_samples(vlm: Vlm, pictures: Sequence[Image.Image], settings: PredictSettings) -> list[Prediction]:
    rows = []
    for replies in generate_replies(
        vlm,
        prefill_pictures(vlm, pictures),
        samples=settings.samples,
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        seed=settings.seed,
    ):
        readable = [(judgement, reply) for reply in replies if (judgement := parse_reply(reply)) is not None]
        if not readable:
            error = f"none of {len(replies)} replies was readable"
            rows.append(_prediction(vlm, settings, replies[0], error=error))
            continue
        scores = [judgement.score for judgement, _ in readable]
        mean = fmean(scores)
        judgement, reply = min(readable, key=lambda pair: abs(pair[0].score - mean))
        row = _prediction(vlm, settings, reply, judgement)
        rows.append(replace(row, score=mean, score_std=pstdev(scores)))
    return rows


def _prediction(
    vlm: Vlm,
    settings: PredictSettings,
    reply: str = "",
    judgement: Judgement | None = None,
    *,
    error: str | None = None,
) -> Prediction:
    """A row without image and score."""
    return Prediction(
        image="",
        score=None,
        score_std=None,
        readable=None if settings.fast else judgement is not None,
        reasoning=judgement.reasoning if judgement else None,
        reply=reply,
        model=vlm.name,
        revision=vlm.revision,
        decoding=settings.describe(vlm.max_pixels),
        error=error,
    )


class Origin(NamedTuple):
    """Where rows come from. Numbers of two origins must not be mixed."""

    model: str
    revision: str
    decoding: str


def origin_of(vlm: Vlm, settings: PredictSettings) -> Origin:
    """The origin of the rows of `predict`."""
    return Origin(vlm.name, vlm.revision, settings.describe(vlm.max_pixels))


def empty_row(origin: Origin) -> Prediction:
    """A row without image, reply and score."""
    return Prediction(
        image="", score=None, score_std=None, readable=None, reasoning=None, reply="", **origin._asdict(), error=None
    )


def has_no_error(row: Prediction) -> bool:
    return row.error is None


def size_and_time(image: str) -> tuple[int, float] | None:
    """Bytes of a picture's file, and when it was changed, in seconds since 1970; None where there is none."""
    try:
        status = os.stat(image)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime


def with_identity(row: Prediction) -> Prediction:
    """A row for a file of rows: with the size, time and hash of its picture's file, so that an edit is noticed."""
    return replace(row, **identity_of(row.image))


def identity_of(image: str) -> dict[str, Any]:
    """Size, time and hash of a picture's file; empty where there is none."""
    status = size_and_time(image)
    if status is None or not Path(image).is_file():
        return {}
    with Path(image).open("rb") as opened:
        content = hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return {"size": status[0], "mtime": status[1], "content": content}


def _path_of(image: ImageSource) -> str:
    """The path of a picture; a picture in memory has none unless it came from a file."""
    return str(Path(image).absolute()) if isinstance(image, str | Path) else str(getattr(image, "filename", ""))
