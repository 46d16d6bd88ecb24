"""All settings of AesCoT. The options of `aesr1 cot build` and `cot filter` are made from these fields."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aesr1.contract import MAX_PIXELS, VERSION
from aesr1.critique_text import DIMENSIONS
from aesr1.errors import AesError

TEACHER = "teacher-1"
"""The prompt in use. A changed text gets a new file and number, because every row names its prompt."""
SCORER = f"scorer-{VERSION}"
"""The contract's own prompt, without the score: for a teacher that is a scorer. The filters keep what fits."""
JUDGES = {"leak": "leak-1", "align": "align-1", "fact": "fact-1"}
"""Judges and their prompts."""
KEY_VARIABLE = "OPENAI_API_KEY"


def _setting(default: Any, text: str, **option: Any) -> Any:
    """A field with its help text. `option`: its name on the command line (`flag`), its `minimum`."""
    return field(default=default, metadata={"help": text, **option})


@dataclass(frozen=True)
class FilterSettings:
    """Every threshold. `aesr1 cot filter` applies changed ones to the raw answers again."""

    shortest: int = _setting(30, "Filter: least number of words.")
    longest: int = _setting(400, "Filter: largest number of words.")
    dimensions: int = _setting(3, "Filter: least number of AesCoT's five dimensions that a text speaks of.")
    english: float = _setting(0.15, "Filter: least share of English function words.")
    near: float = _setting(0.6, "Filter: largest share of word triples in common with an earlier text; 1 is off.")
    template: float = _setting(0.5, "Filter: largest share of common sentences in a text; 1 is off.")
    common: float = _setting(0.05, "Filter: share of texts from which on a sentence is a common one.")
    tolerance: float = _setting(0.2, "Filter: largest error of a blind judge's score, 0–1.")

    def __post_init__(self) -> None:
        shares = (self.english, self.near, self.template, self.common, self.tolerance)
        ordered = 0 <= self.shortest <= self.longest and 0 <= self.dimensions <= len(DIMENSIONS)
        if not ordered or not all(0 <= share <= 1 for share in shares):
            raise AesError(
                f"these filters pass nothing or make no sense: {self}",
                fix=f"give shortest ≤ longest words, 0 to {len(DIMENSIONS)} dimensions, and shares from 0 to 1",
            )


EMBEDDED = FilterSettings(shortest=8, dimensions=1, near=1.0, template=1.0)
"""For the embedded critic: its few dozen phrases are always the same."""


@dataclass(frozen=True)
class EndpointConfig:
    """Which model at which address, and how many requests it gets."""

    url: str = field(metadata={"help": "OpenAI-compatible address, …/v1; default: the embedded critic."})
    model: str = field(metadata={"help": "The teacher's model."})
    in_flight: int = _setting(64, "Largest number of requests at the same time.", minimum=1)
    retries: int = _setting(8, "Retries of one request.", minimum=0)
    timeout: float = _setting(180.0, "Seconds for one try, to the last byte.")
    rpm: float | None = _setting(None, "Largest number of requests a minute.")
    tpm: float | None = _setting(None, "Largest number of tokens a minute, in and out.")
    temperature: float = _setting(1.0, "Temperature of the teacher.", minimum=0)
    max_tokens: int = _setting(700, "Longest answer, in tokens.", minimum=1)
    key_variable: str = KEY_VARIABLE  # the environment variable that holds the key; the key itself is not stored

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise AesError(f"{self.url} is not the address of a server", fix="give one like http://localhost:8000/v1")
        if address.username or address.password or address.query:
            raise AesError(
                "the address holds a name, a key or a query, which would appear in files and logs",
                fix=f"put the key into the environment variable {self.key_variable}",
            )
        limits = [self.timeout, *(limit for limit in (self.rpm, self.tpm) if limit is not None)]
        valid = all(0 < limit < math.inf for limit in limits)
        if self.in_flight < 1 or self.retries < 0 or self.max_tokens < 1 or not valid:
            raise AesError(
                f"these settings send no request: {self}",
                fix="in_flight, timeout, rpm, tpm and max_tokens must be above 0",
            )


@dataclass(frozen=True)
class Teacher:
    """The model that writes critiques, what it may cost, and the judges of its answers."""

    endpoint: EndpointConfig
    prompt: str = _setting(TEACHER, f"The prompt: {TEACHER}, {SCORER} (for a model like ours), or a .txt file.")
    judges: tuple[str, ...] = _setting(
        (), f"{', '.join(JUDGES)}: also judged by the model; may be repeated.", flag="--judge"
    )
    max_pixels: int = _setting(MAX_PIXELS, "Larger pictures are shrunk to this many pixels.")
    price_in: float = _setting(0.0, "Price of a million tokens in.", minimum=0)
    price_out: float = _setting(0.0, "Price of a million tokens out.", minimum=0)
    max_cost: float | None = _setting(None, "Stop before it costs more than this; needs the prices.")

    def __post_init__(self) -> None:
        unknown = [name for name in self.judges if name not in JUDGES]
        if unknown:
            raise AesError(f"{unknown[0]!r} is not a judge", fix=f"choose from {', '.join(JUDGES)}")
        if self.max_cost is not None and not 0 < self.max_cost < math.inf:
            raise AesError(f"max_cost is {self.max_cost}", fix="give an amount above 0")
        if self.max_pixels < 28 * 28:
            raise AesError(
                f"max_pixels is {self.max_pixels}", fix="give 784 pixels or more: a model sees little in less"
            )

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """The price of these tokens."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


@dataclass(frozen=True)
class CotConfig:
    """How many rationales, from which ratings, by which critic. A third each are of bad, fair and good pictures."""

    ratings: Path
    output: Path
    n: int = _setting(3_000, "Rationales to keep, a third each of bad, fair and good.")
    split: str = _setting("train", "Split of the ratings to write about.")
    attempts: int = _setting(3, "Largest number of drafts for a picture.")
    seed: int = _setting(0, "The same seed gives the same pictures.", minimum=0)
    votes: int = _setting(
        0,
        "Embedded critic: the score to write about is the mean of this many raters, drawn by chance; 0: of all.",
        minimum=0,
    )
    filters: FilterSettings = EMBEDDED
    teacher: Teacher | None = None  # default: the embedded critic

    def __post_init__(self) -> None:
        if self.teacher is not None and self.votes:
            raise AesError(
                "votes draws scores for the embedded critic, and a teacher writes", fix="leave out votes or the teacher"
            )
