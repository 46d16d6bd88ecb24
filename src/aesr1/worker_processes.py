"""Worker processes that end when their parent ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor


def worker_pool(count: int | None = None) -> ProcessPoolExecutor:
    """A pool of `count` processes, by default one for each core. They start now, before the caller starts threads.

    A killed parent cannot end its workers; they would wait for work forever and keep its terminal and pipes open.
    """
    pool = ProcessPoolExecutor(count, initializer=_end_with_parent)
    pool.submit(os.getpid).result()
    return pool


def _end_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches them too; only the parent handles it
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
