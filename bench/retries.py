"""Our endpoint client against the openai client's own retries, on a server that refuses too many requests at once.

The openai client gets a semaphore and one back-off that all requests share. Both may retry a request eight times.

    python bench/retries.py
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import openai

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from faults import Faults

from aesr1.endpoint.client import EndpointClient
from aesr1.endpoint.settings import EndpointConfig

REQUESTS, IN_FLIGHT, RETRIES, LATENCY = 400, 64, 8, 0.2


def messages(number: int) -> list[dict[str, Any]]:
    picture = {"type": "image_url", "image_url": {"url": f"data:{number:0200d}"}}
    return [{"role": "user", "content": [{"type": "text", "text": "x"}, picture]}]


async def ours(url: str) -> int:
    """Requests without an answer."""
    async with EndpointClient(EndpointConfig(url, "test", in_flight=IN_FLIGHT, retries=RETRIES)) as client:
        answers = await asyncio.gather(*(client.ask(messages(number)) for number in range(REQUESTS)))
    return sum(answer.text is None for answer in answers)


async def openai_retries(url: str) -> int:
    """Requests without an answer."""
    until = 0.0
    places = asyncio.Semaphore(IN_FLIGHT)

    async def wait(_: Any) -> None:
        while (seconds := until - time.monotonic()) > 0:
            await asyncio.sleep(seconds)

    async def observe(response: Any) -> None:
        nonlocal until
        if response.status_code in (429, 503, 529):
            until = max(until, time.monotonic() + float(response.headers.get("retry-after", 0.5)))

    http = openai.DefaultAsyncHttpxClient(event_hooks={"request": [wait], "response": [observe]})
    client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=RETRIES, timeout=180, http_client=http)

    async def one(number: int) -> bool:
        async with places:
            try:
                await client.chat.completions.create(model="test", messages=messages(number))  # type: ignore[arg-type]
            except openai.APIError:
                return True
            return False

    try:
        return sum(await asyncio.gather(*(one(number) for number in range(REQUESTS))))
    finally:
        await client.close()


for capacity in (16, 4):
    for ask in (ours, openai_retries) * 2:
        with Faults(lambda *_: None, latency=LATENCY) as server:
            server.plan = lambda *_, most=capacity, s=server: "429" if s._at_once > most else None
            started = time.monotonic()
            lost = asyncio.run(ask(server.url))
            seconds = time.monotonic() - started
        requests = len(server.requests)
        print(f"{capacity} at once, {ask.__name__}: {lost} unanswered, {requests} requests, {seconds:.1f} s")
