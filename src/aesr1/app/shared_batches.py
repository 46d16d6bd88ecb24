"""Batches that several threads share: what they ask for at the same time is one call of the model."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import TYPE_CHECKING

from aesr1.model.model_thread import ModelThread, settle

if TYPE_CHECKING:
    from PIL import Image

    from aesr1.records import Prediction


PATIENCE = 0.1
"""How long a batch waits for the threads that the one before has served, as a share of that one's time."""

Asked = tuple["Sequence[Image.Image]", "Future[Sequence[Prediction]]"]
"""The pictures of one call, and the rows to come."""


class SharedBatches:
    """A function of a batch that any number of threads may call, and that runs in the model's thread.

    What comes alone begins at once. Calls that come meanwhile wait; then the pictures of all, up to `size`, are one
    batch, in the order in which they came. A thread with more pictures than a batch holds asks again for each batch, so
    it and the others take turns.
    """

    def __init__(
        self,
        thread: ModelThread,
        score: Callable[[Sequence[Image.Image]], Sequence[Prediction]],
        size: int,
        *,
        joined: bool = True,
    ) -> None:
        """`score`: one row for each picture. `joined` False: threads only take turns."""
        self._thread, self._score, self._size, self._joined = thread, score, size, joined
        self._changed = threading.Condition()
        self._waiting: deque[Asked] = deque()
        self._expected, self._patience_ends = 0, 0.0  # pictures of the next batch, and how long it waits for them

    def __call__(self, pictures: Sequence[Image.Image]) -> Sequence[Prediction]:
        """The rows of these pictures. A call whose pictures raise an error gets it, and no other call does."""
        if self._thread.is_direct:
            return self._score(pictures)
        rows: Future[Sequence[Prediction]] = Future()
        with self._changed:
            self._waiting.append((pictures, rows))
            self._changed.notify()
        self._thread.submit(self._run)
        try:
            return rows.result()
        finally:
            rows.cancel()  # Ctrl-C came first, else this does nothing

    def _run(self) -> None:
        """Score the next batch. It is submitted once for each call: where all have been joined, none may wait."""
        with self._changed:
            if not self._waiting:
                return
            self._wait_for_the_served()
            batch = self._first_waiting()
        if batch:
            settle(batch, self._rows)

    def _wait_for_the_served(self) -> None:
        """Threads that were just served mostly come again: without a moment's patience they would miss every batch."""
        expected = min(self._size, self._expected) if self._joined else 0
        self._changed.wait_for(
            lambda: _pictures(self._waiting) >= expected,
            self._patience_ends - time.monotonic(),
        )

    def _first_waiting(self) -> list[Asked]:
        batch: list[Asked] = []
        while self._waiting and (not batch or self._fits(batch, self._waiting[0])):
            asked = self._waiting.popleft()
            if asked[1].set_running_or_notify_cancel():
                batch.append(asked)
        return batch

    def _fits(self, batch: Sequence[Asked], asked: Asked) -> bool:
        return self._joined and _pictures([*batch, asked]) <= self._size

    def _rows(self, batch: Sequence[Asked]) -> list[Sequence[Prediction]]:
        started = time.monotonic()
        try:
            rows = iter(self._score([picture for pictures, _ in batch for picture in pictures]))
        finally:  # before the callers hear of it and come again
            ended = time.monotonic()
            with self._changed:
                came = [*batch, *self._waiting]
                self._expected = _pictures(came) if len(came) > 1 else 0
                self._patience_ends = ended + PATIENCE * (ended - started)
        return [list(islice(rows, len(pictures))) for pictures, _ in batch]


def _pictures(asked: Sequence[Asked]) -> int:
    return sum(len(pictures) for pictures, _ in asked)
