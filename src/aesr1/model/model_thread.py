"""The thread that loads and runs the models of a device; any other thread hands it work and waits."""

from __future__ import annotations

import atexit
import ctypes
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

LAST_SECONDS = 5.0
"""How long the end of the process waits for the operation of torch that runs."""

Job = TypeVar("Job", bound=tuple[Any, Future[Any]])
Result = TypeVar("Result")


class ModelThread:
    """A thread that does one thing after another. It begins with its first work and keeps no process alive.

    Each thread that computes with torch on a CPU has its own OpenMP threads. Where there are more than cores, they wait
    for each other asleep and not awake, and a model is half as fast: so one thread loads models and runs them.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        """A forked process has no thread, and locks may be held by threads that it does not have."""
        self._lock, self._ending = threading.Lock(), False
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], int, Future[Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def is_direct(self) -> bool:
        """Whether the caller does its work itself: this thread cannot wait for itself; once Python ends, it is gone."""
        return self._ending or threading.current_thread() is self._thread

    def run(self, function: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """What the function returns or raises there. Ctrl-C ends the wait; what has begun goes on to its end."""
        if self.is_direct:
            return function(*arguments, **named)
        done: Future[Result] = self.submit(function, *arguments, **named)
        try:
            return done.result()
        finally:
            done.cancel()

    def submit(self, function: Callable[..., Result], *arguments: Any, **named: Any) -> Future[Result]:
        """Call it after all that was submitted before, with as many OpenMP threads as the caller would use."""
        import torch

        done: Future[Result] = Future()
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="aesr1-model", daemon=True)
                self._thread.start()
                atexit.register(self._end)
        self._work.put((partial(function, *arguments, **named), torch.get_num_threads(), done))
        return done

    def _loop(self) -> None:
        import torch

        while not self._ending and (job := self._work.get()) is not None:
            call, threads, done = job
            if done.set_running_or_notify_cancel():
                if torch.get_num_threads() != threads:
                    torch.set_num_threads(threads)
                settle([(call, done)], lambda jobs: [jobs[0][0]()])
            del job, call, done  # they hold pictures

    def _end(self) -> None:
        """A thread that is within torch when Python ends would crash the process: it ends at its next line."""
        thread = self._thread
        if thread is None or thread.ident is None:
            return
        self._ending = True
        self._work.put(None)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
        thread.join(LAST_SECONDS)


_THREADS: dict[str, ModelThread] = {}


def model_thread(device: str | None = None) -> ModelThread:
    """The thread of a device, one for each in a process. None is the best device that is there."""
    return _THREADS.setdefault(device or _best_device(), ModelThread())


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _forget_threads() -> None:
    for thread in _THREADS.values():
        thread._forget()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_threads)


def settle(jobs: Sequence[Job], run: Callable[[Sequence[Job]], Sequence[Any]]) -> None:
    """Set the future of each job, a request and its future, to its result or error; `run` gives results of a batch.

    A batch that fails is tried in halves, so that one bad request fails alone.
    """
    try:
        results = run(jobs)
    except BaseException as error:  # whatever it is, who waits must hear of it
        if len(jobs) == 1 or not isinstance(error, Exception):
            for _, future in jobs:
                future.set_exception(error)
            return
        half = len(jobs) // 2
        settle(jobs[:half], run)
        settle(jobs[half:], run)
        return
    for (_, future), result in zip(jobs, results, strict=True):
        future.set_result(result)
