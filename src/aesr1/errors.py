"""AesError, the one exception for problems that a user can solve; text for a terminal; how to install an extra."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable


class AesError(Exception):
    """A problem that a user can solve: `problem` says what is wrong, `fix` what to do."""

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix

    def __reduce__(self) -> tuple[Callable[[str, str], AesError], tuple[str, str]]:
        return _rebuild, (self.problem, self.fix)  # worker processes return it pickled

    def __str__(self) -> str:
        return f"{self.problem}\n  → {self.fix}"


def printable(text: str) -> str:
    """Text for a terminal: control characters and halves of characters are escaped, line breaks and tabs stay.

    File names and replies may hold escape sequences, which a terminal would obey.
    """
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def install(extra: str) -> str:
    """The fix where packages of one of our extras are missing."""
    return f"in your clone of aesr1: pip install '.[{extra}]'"


def _rebuild(problem: str, fix: str) -> AesError:
    return AesError(problem, fix=fix)
