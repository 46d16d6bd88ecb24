"""Batches that several threads share: what they ask for at the same time is one call of the model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from aesr1.records import Prediction


PATIENCE = 0.1
"""How long a batch waits for the threads that the one before has served, as a share of that one's time."""


@dataclass(eq=False)
class _Asked:
    """The pictures of one thread, and what came of them."""

    pictures: Sequence[Image.Image]
    rows: Sequence[Prediction] | None = None
    error: Exception | None = None

    @property
    def answered(self) -> bool:
        return self.rows is not None or self.error is not None


class SharedBatches:
    """A function of a batch that any number of threads may call, and that runs in one of them at a time.

    There is no thread of its own. A thread that comes alone begins at once. Those that come meanwhile wait; then one of
    them runs the pictures of all, up to `size`, in the order in which they came, and hands out the rows. A thread with
    more pictures than a batch holds asks again for each batch, so it and the others take turns.
    """

    def __init__(
        self, score: Callable[[Sequence[Image.Image]], Sequence[Prediction]], size: int, *, joined: bool = True
    ) -> None:
        """`score`: one row for each picture. `joined` False: threads only take turns."""
        self._score, self._size, self._joined = score, size, joined
        self._changed = threading.Condition()
        self._waiting: list[_Asked] = []
        self._running = False
        self._expected, self._patience_ends = 0, 0.0  # pictures of the next batch, and how long it waits for them

    def __call__(self, pictures: Sequence[Image.Image]) -> Sequence[Prediction]:
        """The rows of these pictures. An error of `score` reaches every thread whose pictures were in the batch."""
        asked = _Asked(pictures)
        with self._changed:
            self._waiting.append(asked)
            self._changed.notify_all()
        try:
            while self._is_next(asked):
                self._run()
        finally:
            with self._changed:
                if asked in self._waiting:  # Ctrl-C came first
                    self._waiting.remove(asked)
        if asked.error:
            raise asked.error
        assert asked.rows is not None
        return asked.rows

    def _is_next(self, asked: _Asked) -> bool:
        """Wait until nothing runs: this thread runs the next batch. False once it has its answer."""
        with self._changed:
            self._changed.wait_for(lambda: asked.answered or not self._running)
            if asked.answered:
                return False
            self._running = True
            return True

    def _run(self) -> None:
        batch: list[_Asked] = []
        started = time.monotonic()
        try:
            with self._changed:
                self._wait_for_the_served()
                batch = self._first_waiting()
            started = time.monotonic()
            rows = self._score([picture for asked in batch for picture in asked.pictures])
            for asked in batch:
                asked.rows, rows = rows[: len(asked.pictures)], rows[len(asked.pictures) :]
        except Exception as error:  # whatever it is, the threads that wait must hear of it
            for asked in batch:
                asked.error = error
        finally:
            with self._changed:
                self._waiting[:0] = [asked for asked in batch if not asked.answered]  # after Ctrl-C others run them
                came = [asked for asked in batch if asked.answered] + self._waiting
                self._expected = sum(len(asked.pictures) for asked in came) if len(came) > 1 else 0
                ended = time.monotonic()
                self._patience_ends = ended + PATIENCE * (ended - started)
                self._running = False
                self._changed.notify_all()

    def _wait_for_the_served(self) -> None:
        """Threads that were just served mostly come again: without a moment's patience they would miss every batch."""
        expected = min(self._size, self._expected) if self._joined else 0
        self._changed.wait_for(
            lambda: sum(len(asked.pictures) for asked in self._waiting) >= expected,
            self._patience_ends - time.monotonic(),
        )

    def _first_waiting(self) -> list[_Asked]:
        batch = [self._waiting.pop(0)]
        pictures = len(batch[0].pictures)
        while self._joined and self._waiting and pictures + len(self._waiting[0].pictures) <= self._size:
            batch.append(self._waiting.pop(0))
            pictures += len(batch[-1].pictures)
        return batch
