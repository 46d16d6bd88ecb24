"""AesError, the one exception for problems that a user can solve; how to install an extra."""

from __future__ import annotations

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


def install(extra: str) -> str:
    """The fix where packages of one of our extras are missing."""
    return f"in your clone of aesr1: pip install '.[{extra}]'"


def _rebuild(problem: str, fix: str) -> AesError:
    return AesError(problem, fix=fix)
