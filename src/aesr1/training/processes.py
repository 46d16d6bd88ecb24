"""Several processes of one run: one prints, all wait for each other."""

from __future__ import annotations

import os
import sys
from typing import Any


def is_first_process() -> bool:
    """Whether this is the run's first process, or its only one."""
    return os.environ.get("RANK", "0") == "0"


def should_print_error(text: str) -> bool:
    """Whether this process should print an error: of several that fail alike one does, one that fails alone does too.

    Before the processes are joined they can only fail alike, and the first of each machine speaks.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return True
    distributed = _joined()
    if distributed is None:
        return os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        store = distributed.distributed_c10d._get_default_store()
        return int(store.add(f"aesr1 said: {text}", 1)) == 1
    except RuntimeError:  # the process that holds the store is gone: better twice than never
        return True


def wait_for_all() -> None:
    """Come back when every process of the run has come here."""
    distributed = _joined()
    if distributed is not None:
        distributed.barrier()


def _joined() -> Any | None:
    """torch.distributed where it is in use. It is not imported for this: an error should not cost seconds."""
    distributed = sys.modules.get("torch.distributed")
    joined = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return distributed if joined else None
