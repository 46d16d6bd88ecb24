"""An OpenAI-compatible server that misbehaves on demand, over plain sockets, for tests."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

WORDS = ("amber", "birch", "cedar", "dune", "ember", "fern", "gorse", "heath", "iris", "jade", "kelp", "loam", "moss")
VERDICTS = {"bad": "a poor picture", "fair": "an ordinary picture", "good": "a beautiful picture"}


def critique(score: float, *, variety: int = 0) -> str:
    """A critique of the right level that claims nothing measurable; another one for each variety."""
    level = "bad" if score < 0.4 else "fair" if score < 0.7 else "good"
    a, b, c = (WORDS[(variety // 13**k) % 13] for k in range(3))
    return (
        f"Light and shadow pass over the {a} ground, and the {b} tones of the sky give the scene a mood of its own. "
        f"The composition leads the eye from the {c} edge towards the subject, with a foreground that explains the "
        f"story, while colour and brightness stay as the {a} hour left them. Altogether it is {VERDICTS[level]}."
    )


def completion(text: str | None, *, finish: str = "stop", refusal: str | None = None) -> dict[str, Any]:
    """A chat completion that says this."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "test",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 900, "completion_tokens": 100, "total_tokens": 1000},
    }


BROKEN: dict[str, tuple[dict[str, Any] | bytes, int]] = {
    "json": (b'{"choices": [{"message": {"content": "Soft li', 200),
    "html": (b"<html>busy</html>", 200),
    "empty": (completion(""), 200),
    "null": ({**completion("x"), "choices": []}, 200),
    "ids": ({"id": 7, "object": "nonsense", "model": None, "choices": [{"index": 99}]}, 200),
    "refusal": (completion(None, refusal="I cannot judge this picture."), 200),
    "filtered": (completion("", finish="content_filter"), 200),
    "policy": ({"error": {"message": "It met our policy.", "code": "content_policy_violation"}}, 400),
    "quota": ({"error": {"message": "You are out of quota.", "code": "insufficient_quota"}}, 429),
    "busy as 200": ({"error": {"message": "Provider is busy.", "code": 503}}, 200),
    "policy as 200": ({"error": {"message": "It met our policy.", "code": "content_policy_violation"}}, 200),
    "spent as 200": ({"error": {"message": "Insufficient credits.", "code": 402}}, 200),
    "newer": ({"error": {"message": "Use 'max_completion_tokens' instead.", "code": "unsupported_parameter"}}, 400),
    "choices": ({**completion("x"), "choices": {"a": 1}}, 200),
    "deep": (b'{"choices": ' + b"[" * 100_000, 200),
    "parts": (
        {**completion("x"), "choices": [{"index": 0, "message": {"content": [{"type": "text", "text": "x"}]}}]},
        200,
    ),
    "usage": ({**completion("x"), "usage": {"prompt_tokens": "many"}}, 200),
    "cut": (completion(critique(0.5)[:150], finish="length"), 200),
}


class Faults:
    """`with Faults(plan) as server`: every request is handed to `plan(number, body, times)` for what to do.

    number counts requests; times counts those about the same picture. The plan returns a fault's name or None.
    """

    def __init__(self, plan: Callable[[int, dict[str, Any], int], str | None], *, latency: float = 0.0) -> None:
        self.plan, self.latency = plan, latency
        self.requests: list[dict[str, Any]] = []
        self.answered: Counter[str] = Counter()  # by picture
        self.times: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.most_at_once = self._at_once = 0

    def __enter__(self) -> Faults:
        started = threading.Event()

        def run() -> None:
            self._loop = asyncio.new_event_loop()
            self._server = self._loop.run_until_complete(
                asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 24)
            )
            self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
            started.set()
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        async def stop() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._loop.stop()

        asyncio.run_coroutine_threadsafe(stop(), self._loop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(re.search(r"content-length: (\d+)", head, re.IGNORECASE)[1])
                body = json.loads(await reader.readexactly(length))
                key = re.search(r"authorization: (.*)\r", head, re.IGNORECASE)
                self.keys.add(key[1] if key else "")
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                try:
                    if not await self._answer(body, writer):
                        return
                finally:
                    self._at_once -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection stays open."""
        parts = body["messages"][0]["content"]
        picture = next((part["image_url"]["url"][-200:] for part in parts if part["type"] == "image_url"), "")
        number = len(self.requests)
        self.requests.append(body)
        self.times[picture] += 1
        fault = self.plan(number, body, self.times[picture])
        if self.latency:
            await asyncio.sleep(self.latency)
        if fault is not None:
            self.faults[fault] += 1
            return await self._misbehave(fault, writer)
        self.answered[picture] += 1
        asked = next(part["text"] for part in parts if part["type"] == "text")
        score = re.search(r"their mean is (\d\.\d\d)", asked)
        text = critique(float(score[1]), variety=number * 7) if score else "none"
        self._send(writer, completion(text))
        await writer.drain()
        return True

    async def _misbehave(self, fault: str, writer: asyncio.StreamWriter) -> bool:
        name, _, detail = fault.partition(" ")
        if name.isdecimal():
            headers = f"retry-after: {detail}\r\n" if detail else ""
            self._send(writer, {"error": {"message": f"fault {name}", "code": None}}, status=int(name), headers=headers)
        elif name == "hang":
            await asyncio.sleep(30)
        elif name in ("close", "drip"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n")
            for _ in range(100 if name == "drip" else 1):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
            return False
        else:
            self._send(writer, *BROKEN[fault])
        await writer.drain()
        return True

    @staticmethod
    def _send(
        writer: asyncio.StreamWriter, answer: dict[str, Any] | bytes, status: int = 200, headers: str = ""
    ) -> None:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        writer.write(head.encode() + body)
