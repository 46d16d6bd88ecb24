"""Worker processes that end when their parent ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor


def worker_pool(count: int | None = None, *, copies: bool = True) -> ProcessPoolExecutor:
    """A pool of `count` processes, by default one for each core.

    `copies`: they are copies of this process and start now, before the caller starts threads. Else they begin anew,
    which takes a second or two, during which this returns; a library with OpenMP, as rawpy, is safe in them alone.
    A killed parent cannot end its workers; they would wait for work forever and keep its terminal and pipes open.
    """
    context = None if copies else multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, initializer=_end_with_parent)
    started = pool.submit(os.getpid)
    if copies:
        started.result()
    return pool


def _end_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches them too; only the parent handles it
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
