"""Appends drafts to raw.jsonl while many requests are in flight."""

from __future__ import annotations

import asyncio

from aesr1.json_lines import Appender
from aesr1.records import Draft


class Ledger:
    """Rows are synced to disk together in a thread: one sync for all rows that came during the last one."""

    def __init__(self, raw: Appender) -> None:
        self._raw = raw
        self._waiting: list[tuple[Draft, asyncio.Future[None]]] = []
        self._busy = asyncio.Lock()

    async def __aenter__(self) -> Ledger:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._flush()

    async def append(self, draft: Draft) -> None:
        """Return once the row is on disk."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((draft, written))
        await self._flush()
        await written

    async def _flush(self) -> None:
        async with self._busy:
            batch, self._waiting = self._waiting, []
            if batch:
                await asyncio.to_thread(self._raw.append, *(draft for draft, _ in batch))
                for _, written in batch:
                    written.set_result(None)
