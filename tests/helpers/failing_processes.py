"""`aesr1 rapo` in as many processes as torchrun starts, in which one fails or is slow: for test_processes.py.

torchrun --nproc_per_node 2 tests/helpers/failing_processes.py {well,full,slow} [any setting of `aesr1 rapo`]
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import torch

from aesr1.cli import main as cli
from aesr1.rapo.trainer import RapoTrainer
from aesr1.training import run as training


def full(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has …")


def save_late(trainer: RapoTrainer, folder: str) -> None:
    time.sleep(3)
    super(RapoTrainer, trainer)._save_rng_state(folder)


def main() -> None:
    mode, *arguments = sys.argv[1:]
    if os.environ["RANK"] == "1" and mode == "full":
        training.load = full  # type: ignore[assignment]
    if os.environ["RANK"] == "1" and mode == "slow":
        RapoTrainer._save_rng_state = save_late
    sys.argv = ["aesr1", "rapo", *arguments]
    cli.main()


if __name__ == "__main__":
    main()
