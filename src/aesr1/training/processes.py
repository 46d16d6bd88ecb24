"""Several processes of one run: one prints, all wait for each other."""

from __future__ import annotations

import os
import sys
from typing import Any


def is_first_process() -> bool:
    """Whether this is the first or only process of the run."""
    return os.environ.get("RANK", "0") == "0"


def should_print_error(text: str) -> bool:
    """Whether this process should print an error. Of several equal errors one is printed; a single one always.

    Before the processes are joined their errors are equal, and the first process of each machine prints.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return True
    distributed = _joined()
    if distributed is None:
        return os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        store = distributed.distributed_c10d._get_default_store()
        return int(store.add(f"aesr1 error: {text}", 1)) == 1
    except RuntimeError:  # the process with the store has ended: better printed twice than never
        return True


def wait_for_all() -> None:
    """Wait until all processes of the run are here."""
    distributed = _joined()
    if distributed is not None:
        distributed.barrier()


def _joined() -> Any | None:
    """torch.distributed if it is in use. It is not imported here, because that takes seconds."""
    distributed = sys.modules.get("torch.distributed")
    joined = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return distributed if joined else None
