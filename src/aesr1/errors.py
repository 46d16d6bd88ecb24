"""The one exception for what a user can mend."""

from __future__ import annotations


class AesError(Exception):
    """A problem a user can mend: `problem` says what is wrong, `fix` what to do about it."""

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}\n  → {self.fix}"
