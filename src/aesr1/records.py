"""The rows that stages exchange."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aesr1 import __version__
from aesr1.contract import VERSION
from aesr1.errors import AesError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Rating:
    """The human rating of one image. `image` is absolute, or relative to the file that holds the row."""

    image: str
    score: float  # mean opinion, 0–1
    domain: str  # the data set; images of two domains are not compared in the ranking
    split: str  # train, val or test
    rater_std: float | None = None  # standard deviation of single votes, on the 0–1 scale
    raters: int | None = None
    votes: tuple[int, ...] | None = None  # number of votes for each mark, lowest first
    attributes: dict[str, float] | None = None  # ratings of its parts (composition, light …), 0–1
    group: str | None = None  # pictures that belong together (one prompt, one theme): no split cuts through a group
    licence: str | None = None
    source: str | None = None  # who published the rating

    def __post_init__(self) -> None:
        _check_score(self.score)
        if self.split not in SPLITS:
            raise ValueError(f"split is {self.split!r}, not one of {', '.join(SPLITS)}")


@dataclass(frozen=True)
class Draft:
    """One attempt at a rationale, kept or refused: a row of raw.jsonl."""

    image: str
    score: float
    domain: str
    attempt: int
    text: str  # empty where the teacher gave none
    refused: str | None  # the first reason against it, "leak: …", "filtered: …"; None where it may stay
    critic: str  # "embedded" or the teacher's model
    prompt: str = ""  # version of the teacher's prompt
    tokens_in: int = 0
    tokens_out: int = 0
    finish: str | None = None  # "length": the text was cut off
    judged: dict[str, str] | None = None  # answers of judges, by filter
    contract: str = VERSION

    def __post_init__(self) -> None:
        _check_score(self.score)


@dataclass(frozen=True)
class Rationale:
    """A critique that fits an image's human score (AesCoT)."""

    image: str
    score: float
    domain: str
    reasoning: str
    critic: str  # who wrote it
    prompt: str = ""  # version of the teacher's prompt
    contract: str = VERSION

    def __post_init__(self) -> None:
        _check_score(self.score)


@dataclass(frozen=True)
class Prediction:
    """A model's score of one image. `score` is None where scoring failed; then `error` says why."""

    image: str
    score: float | None  # 0–1
    score_std: float | None  # standard deviation of the score's distribution, 0–1
    readable: bool | None  # the reply kept the contract; None where no reply was asked for
    reasoning: str | None
    reply: str  # raw
    model: str
    revision: str
    decoding: str  # how the score was read, and the picture size cap
    error: str | None = None
    contract: str = VERSION
    aesr1: str = __version__
    size: int | None = None  # of the picture's file, in bytes
    mtime: float | None = None  # when the file was changed, in seconds since 1970
    content: str | None = None  # hash of the file
    score_10: float | None = None  # the score on the scale 1–10
    stars: int | None = None  # 1–5
    percentile: float | None = None  # share of a reference set with a lower score, in percent
    reference: str | None = None  # the name of that set


@dataclass(frozen=True)
class SampledReply:
    """A reply about one held-out image during training."""

    step: int
    image: str
    rating: float  # the human score
    score: float | None
    readable: bool
    reasoning: str | None
    reply: str  # raw


def _check_score(score: float) -> None:
    if not 0 <= score <= 1:
        raise ValueError(f"score is {score}, outside 0–1")


Record = Rating | Draft | Rationale | Prediction | SampledReply


def ratings_of_split(ratings: list[Rating], split: str, *, where: Path | str) -> list[Rating]:
    """The ratings of one split. AesError where there are none."""
    chosen = [rating for rating in ratings if rating.split == split]
    if not chosen:
        splits = sorted({rating.split for rating in ratings})
        raise AesError(
            f"{where} holds no ratings of split {split!r}; it has {', '.join(splits) or 'no rows at all'}",
            fix="choose one of those, or import the ratings again with a split column",
        )
    return chosen
