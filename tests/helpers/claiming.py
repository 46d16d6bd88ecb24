"""Processes that claim a folder at the same moment, for test_resume.py. Imports little: they are started anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aesr1.errors import AesError
from aesr1.outputs import require_same_settings


@dataclass(frozen=True)
class Settings:
    seed: int
    text: str = "x" * 4000  # a while to write


def claim_each(folder: Path, barrier: Any, answers: Any, *, seed: int, rounds: int) -> None:
    """Claim `folder`/0, 1, … with these settings, each when the others are ready; hand back who was refused where."""
    for number in range(rounds):
        barrier.wait()
        try:
            require_same_settings(folder / str(number), Settings(seed))
            answers.put((number, "bound"))
        except AesError as error:
            answers.put((number, error.problem))
