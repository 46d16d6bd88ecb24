"""Profiles: how a judge is asked, and how its score is read. One TOML file each."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from aesr1.contract import MAX_PIXELS, MIN_PIXELS, PROMPT
from aesr1.errors import AesError

PICTURE = "<image>"
"""Where the picture stands in a prompt."""
CRITIQUE = "<critique>"
"""Where the critique stands in a prompt about one."""
READINGS = {
    "contract": "the contract's reply",
    "answer": "the number in the answer tags",
    "json_rating": "the rating in the answer's JSON",
    "number": "the number that is the reply",
    "words": "expectation over words",
}
"""How a score can be read, and what a row says of it."""
FIELDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("prompt", "reading", "system", "stem", "model", "measures", "source", "licence"), str),
    **dict.fromkeys(("temperature", "top_p"), (int, float)),
    **dict.fromkeys(("top_k", "max_new_tokens", "max_pixels"), int),
    "scale": list,
    "words": dict,
}
"""The fields of a file, and their types."""


@dataclass(frozen=True)
class Profile:
    """How a judge is asked, and how its score is read."""

    name: str
    prompt: str  # the picture stands at PICTURE
    reading: str  # a name of READINGS
    scale: tuple[float, float]
    system: str | None = None  # None: what the model's chat template has
    stem: str = ""  # the beginning of the answer, before the words
    words: Mapping[str, float] = field(default_factory=dict)  # values on the scale
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: all tokens
    max_new_tokens: int = 1024
    max_pixels: int = MAX_PIXELS
    model: str = ""  # the checkpoints that it is for
    measures: str = "aesthetics"
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        low, high = self.scale
        checks = {
            f"prompt names {PICTURE} {self.prompt.count(PICTURE)} times": self.prompt.count(PICTURE) == 1,
            f"reading is {self.reading!r}, not one of {', '.join(READINGS)}": self.reading in READINGS,
            f"scale is {low} to {high}": low < high,
            "reading is words, but there are not two words": self.reading != "words" or len(self.words) > 1,
            "words and stem are for reading words alone": self.reading == "words" or not (self.words or self.stem),
            f"a word's value is outside the scale {low:g} to {high:g}": all(
                low <= value <= high for value in self.words.values()
            ),
            "temperature and top_k begin at 0, top_p is in (0, 1]": self.temperature >= 0
            and self.top_k >= 0
            and 0 < self.top_p <= 1,
            f"max_new_tokens begins at 1, max_pixels at {MIN_PIXELS}": self.max_new_tokens >= 1
            and self.max_pixels >= MIN_PIXELS,
        }
        for problem, holds in checks.items():
            if not holds:
                raise AesError(
                    f"profile {self.name}: {problem}", fix="correct the profile; docs/evaluation.md has the fields"
                )

    def normalised(self, value: float) -> float:
        """A value on the scale as a score, 0–1."""
        low, high = self.scale
        return (value - low) / (high - low)

    def messages(self, picture: Mapping[str, Any], critique: str = "") -> list[dict[str, Any]]:
        """The question as chat messages, with this part as the picture, and with this critique where one stands."""
        texts = [text.replace(CRITIQUE, critique) for text in self.prompt.split(PICTURE)]
        before, after = ([{"type": "text", "text": text}] if text else [] for text in texts)
        system = [{"type": "text", "text": self.system}] if self.system else []
        asked = [("system", system), ("user", [*before, dict(picture), *after])]
        return [{"role": role, "content": parts} for role, parts in asked if parts]

    def spaced_words(self) -> list[str]:
        """The words as they follow the stem: a space between, unless the stem ends with white space."""
        space = " " if self.stem and not self.stem[-1].isspace() else ""
        return [space + word for word in self.words]

    def describe(self, seed: int, reading: str | None = None) -> str:
        """How scores are read. It is in every row, so that a changed profile is another way."""
        notes = ("model", "measures", "source", "licence")
        decides = {name: value for name, value in asdict(self).items() if name not in notes}
        digest = hashlib.blake2b(json.dumps(decides).encode(), digest_size=4).hexdigest()
        way = f"profile {self.name} ({digest}), {reading or READINGS[self.reading]}"
        if self.reading == "words":
            return f"{way}; {self.max_pixels} pixels"
        sampled = f"temperature {self.temperature:g}, top_p {self.top_p:g}, top_k {self.top_k}, seed {seed}"
        return (
            f"{way}; {sampled if self.temperature else 'greedy'}, at most {self.max_new_tokens} tokens, "
            f"{self.max_pixels} pixels"
        )


AESR1 = Profile("aesr1", PICTURE + PROMPT, "contract", (0.0, 1.0), max_new_tokens=512, source="contract.py")
"""The project's own. Its text is the contract's, so it has no file."""


def profile_names() -> list[str]:
    """The names of the profiles that come along."""
    folder = files("aesr1.endpoint") / "profiles"
    return [AESR1.name, *sorted(file.name.removesuffix(".toml") for file in folder.iterdir())]


def load_profile(name: str) -> Profile:
    """One of our profiles by its name, or that of a user's .toml file. AesError says what is wrong with it."""
    if name == AESR1.name:
        return AESR1
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise AesError(
                f"there is no profile {name}", fix=f"pass a .toml file, or one of {', '.join(profile_names())}"
            )
        return _parse(path.stem, path.read_text(encoding="utf-8", errors="replace"))
    if name not in profile_names():
        raise AesError(f"there is no profile {name}", fix=f"pass one of {', '.join(profile_names())}, or a .toml file")
    return _parse(name, (files("aesr1.endpoint") / "profiles" / f"{name}.toml").read_text(encoding="utf-8"))


def _parse(name: str, text: str) -> Profile:
    fix = "correct the file; docs/evaluation.md has the fields of a profile"
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AesError(f"profile {name} is not TOML: {error}", fix=fix) from error
    needed = {each.name for each in fields(Profile)} & {"prompt", "reading", "scale"}
    if missing := sorted(needed - values.keys()):
        raise AesError(f"profile {name} has no {', '.join(missing)}", fix=fix)
    for key, value in values.items():
        if key not in FIELDS:
            raise AesError(f"profile {name} has an unknown field {key!r}", fix=f"use {', '.join(FIELDS)}")
        if not isinstance(value, FIELDS[key]) or isinstance(value, bool):
            raise AesError(f"profile {name}: {key} is {value!r}, of a wrong type", fix=fix)
    numbers = [*values["scale"], *values.get("words", {}).values()]
    if len(values["scale"]) != 2 or not all(isinstance(number, int | float) for number in numbers):
        raise AesError(f"profile {name}: scale is two numbers, and each word has one", fix=fix)
    if values["reading"] == "contract":
        raise AesError(f"profile {name}: the reading contract belongs to {AESR1.name}", fix="choose another reading")
    low, high = values.pop("scale")
    return Profile(name=name, scale=(float(low), float(high)), **values)
