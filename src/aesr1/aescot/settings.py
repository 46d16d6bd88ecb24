"""All settings of AesCoT. The options of `aesr1 cot build` and `cot filter` are made from these fields."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from aesr1.contract import MAX_PIXELS, VERSION
from aesr1.critique_text import DIMENSIONS
from aesr1.endpoint.settings import EndpointConfig, setting
from aesr1.errors import AesError

TEACHER = "teacher-1"
"""The prompt in use. A changed text gets a new file and number, because every row names its prompt."""
SCORER = f"scorer-{VERSION}"
"""The contract's own prompt, without the score: for a teacher that is a scorer. The filters keep what fits."""
JUDGES = {"leak": "leak-1", "align": "align-1", "fact": "fact-1"}
"""Judges and their prompts."""


@dataclass(frozen=True)
class FilterSettings:
    """Every threshold. `aesr1 cot filter` applies changed ones to the raw answers again."""

    shortest: int = setting(30, "Filter: least number of words.")
    longest: int = setting(400, "Filter: largest number of words.")
    dimensions: int = setting(3, "Filter: least number of AesCoT's five dimensions that a text speaks of.")
    english: float = setting(0.15, "Filter: least share of English function words.")
    near: float = setting(0.6, "Filter: largest share of word triples in common with an earlier text; 1 is off.")
    template: float = setting(0.5, "Filter: largest share of common sentences in a text; 1 is off.")
    common: float = setting(0.05, "Filter: share of texts from which on a sentence is a common one.")
    tolerance: float = setting(0.2, "Filter: largest error of a blind judge's score, 0–1.")

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
class Teacher:
    """The model that writes critiques, what it may cost, and the judges of its answers."""

    endpoint: EndpointConfig
    prompt: str = setting(TEACHER, f"The prompt: {TEACHER}, {SCORER} (for a model like ours), or a .txt file.")
    judges: tuple[str, ...] = setting(
        (), f"{', '.join(JUDGES)}: also judged by the model; may be repeated.", flag="--judge"
    )
    max_pixels: int = setting(MAX_PIXELS, "Larger pictures are shrunk to this many pixels.")
    price_in: float = setting(0.0, "Price of a million tokens in.", minimum=0)
    price_out: float = setting(0.0, "Price of a million tokens out.", minimum=0)
    max_cost: float | None = setting(None, "Stop before it costs more than this; needs the prices.")

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
    n: int = setting(3_000, "Rationales to keep, a third each of bad, fair and good.")
    split: str = setting("train", "Split of the ratings to write about.")
    attempts: int = setting(3, "Largest number of drafts for a picture.")
    seed: int = setting(0, "The same seed gives the same pictures.", minimum=0)
    votes: int = setting(
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
