"""Turns errors of full memory into an AesError that says what to lower."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from aesr1.errors import AesError

OUT_OF_MEMORY = re.compile(r"out of memory|allocate memory|Unable to allocate|ALLOC_FAILED|bad_alloc", re.IGNORECASE)
REQUESTED = re.compile(r"(tried to allocate|unable to allocate) ([\d.]+ \w+)", re.IGNORECASE)
GPU = re.compile(r"CUDA|CUBLAS|HIP|XPU", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means full memory, by the messages of torch, CUDA, numpy and the operating system."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or OUT_OF_MEMORY.search(str(error)) is not None


@contextmanager
def explain_out_of_memory(action: str, fix: str, *, host_fix: str | None = None) -> Iterator[None]:
    """Raise an AesError in place of an out-of-memory error.

    `host_fix`: the fix for the computer's memory, not a GPU's.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        text = str(error)
        if not is_out_of_memory(error):
            raise
        on_gpu = isinstance(error, torch.OutOfMemoryError) or GPU.search(text) is not None
        requested = REQUESTED.search(text)
        amount = f": {requested[1].lower()} {requested[2]}" if requested else ""
        raise AesError(
            f"the {'GPU' if on_gpu else 'computer'}'s memory is full while {action}{amount}",
            fix=fix if on_gpu or host_fix is None else host_fix,
        ) from error
