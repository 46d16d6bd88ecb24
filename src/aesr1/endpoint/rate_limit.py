"""Limits of requests to a server: how many at once and a minute, and how long to wait after a refusal."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
OVERLOAD_WINDOW = 1.0  # seconds within which several refusals count as one


class RateLimit:
    """How many requests may be in flight, and how many may start in a minute.

    After a refusal the limit falls by a third; after a round of answers it rises by one.
    """

    def __init__(self, most: int, *, rpm: float | None, tpm: float | None) -> None:
        self.limit = float(most)
        self._most, self._rpm, self._tpm = most, rpm, tpm
        self._running = 0
        self._free = asyncio.Condition()
        self._next = 0.0  # when the next request may start
        self._tokens = 2_000.0  # of a request, running mean
        self._cut = 0.0  # when the limit was last lowered
        self._held = 0.0  # no request before this time

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a free slot and hold it for the block."""
        async with self._free:
            await self._free.wait_for(lambda: self._running < max(1, int(self.limit)))
            self._running += 1
        try:
            start = max(time.monotonic(), self._next)
            self._next = start + self._spacing()
            while (wait := max(start, self._held) - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            yield
        finally:
            async with self._free:
                self._running -= 1
                self._free.notify(2)  # one place, and one more where the limit has risen

    def _spacing(self) -> float:
        """Seconds between two starts."""
        by_requests = 60 / self._rpm if self._rpm else 0.0
        by_tokens = 60 * self._tokens / self._tpm if self._tpm else 0.0
        return max(by_requests, by_tokens)

    def went_well(self, tokens: int) -> None:
        """Record an answered request."""
        self.limit = min(self._most, self.limit + 1 / max(1.0, self.limit))
        if tokens:
            self._tokens += 0.1 * (tokens - self._tokens)

    def too_much(self, wait: float) -> None:
        """Record an overloaded server: no request for `wait` seconds. Several refusals within a second count as one."""
        now = time.monotonic()
        self._held = max(self._held, now + wait)
        if now - self._cut > OVERLOAD_WINDOW:
            self._cut = now
            self.limit = max(1.0, self.limit * 2 / 3)


def backoff(attempt: int) -> float:
    """Seconds before the next try: doubled each time, with random jitter, a minute at most."""
    return float(min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * random.uniform(0.5, 1.0))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by a Retry-After header (seconds or a date); ten minutes at most."""
    try:
        wait = (parsedate_to_datetime(headers["retry-after"]) - datetime.now(UTC)).total_seconds()
        return min(max(0.0, wait), 10 * LONGEST_WAIT)
    except (KeyError, ValueError, TypeError):
        pass
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return min(max(0.0, float(headers[name]) * unit), 10 * LONGEST_WAIT)
        except (KeyError, ValueError):
            continue
    return None
