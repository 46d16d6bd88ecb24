"""What limits a big AesCoT build: requests a second against a server that takes 200 ms, and a resume of 100,000 drafts.

    python bench/teacher.py [--seconds 20] [--rows 100000]

The server answers from a process of its own, so that its work is not ours; the ideal is in-flight / latency. Compared
are the openai client asked directly, our Asker with its pace and retries, and a whole build with pictures and ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import openai

from aesr1.aescot.build import build, open_build
from aesr1.aescot.settings import CotConfig, FilterSettings, Teacher
from aesr1.aescot.teacher import open_attempts
from aesr1.contract import level_of
from aesr1.endpoint.client import EndpointClient
from aesr1.endpoint.settings import EndpointConfig
from aesr1.json_lines import iterate_rows, write_rows
from aesr1.records import Draft, Rating
from aesr1.tiny.album import AlbumConfig, make_album

IN_FLIGHT, LATENCY = 64, 0.2
VERDICTS = {"bad": "a poor picture", "fair": "an ordinary picture", "good": "a beautiful picture"}
PROSE = (
    "Light and shadow pass over the ground, and the tones of the sky give the scene a mood of its own. The composition "
    "leads the eye from the edge towards the subject, with a foreground that explains the story, while colour and "
    "brightness stay as the hour left them. Altogether it is "
)


def serve(ready: multiprocessing.Queue) -> None:
    """Answer every request after LATENCY, whatever it asks."""

    def answer(body: bytes) -> bytes:
        mark = body.find(b"their mean is ")
        score = float(body[mark + 14 : mark + 18]) if mark >= 0 else 0.5
        text = f"{PROSE}{VERDICTS[level_of(score)]}."
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 900, "completion_tokens": 80, "total_tokens": 980}
        reply = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [choice],
            "usage": usage,
        }
        content = json.dumps(reply).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        return head.encode() + content

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                await asyncio.sleep(LATENCY)
                writer.write(answer(body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(connection, "127.0.0.1", 0, limit=1 << 24)
        ready.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


async def rate(ask: Callable[[], Awaitable[object]], seconds: float) -> float:
    """Requests a second with IN_FLIGHT at once."""
    count, end = 0, time.monotonic() + seconds

    async def work() -> None:
        nonlocal count
        while time.monotonic() < end:
            await ask()
            count += 1

    began = time.monotonic()
    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return count / (time.monotonic() - began)


async def compare(url: str, name: str, text: str, seconds: float) -> None:
    """The openai client alone, then our Asker."""
    messages = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        create = client.chat.completions.create
        alone = await rate(lambda: create(model="m", messages=messages), seconds)  # type: ignore[arg-type]
    async with EndpointClient(EndpointConfig(url, "m", in_flight=IN_FLIGHT)) as asker:
        ours = await rate(lambda: asker.ask(messages), seconds)
    ideal = IN_FLIGHT / LATENCY
    print(f"{name}: openai client {alone:.0f}/s ({alone / ideal:.0%}), Asker {ours:.0f}/s ({ours / ideal:.0%})")


def whole_build(url: str, folder: Path) -> None:
    """A build from scenes: pictures opened, measured and encoded, every draft in the ledger."""
    ratings = make_album(AlbumConfig(folder / "scenes", n=1_500, seed=0))
    teacher = Teacher(EndpointConfig(url, "m", in_flight=IN_FLIGHT))
    filters = FilterSettings(near=1.0, template=1.0)
    began, cpu = time.monotonic(), time.process_time()
    summary = build(CotConfig(ratings, folder / "cot", n=900, filters=filters, teacher=teacher))
    wall = time.monotonic() - began
    asked = sum(1 for _ in iterate_rows(folder / "cot" / "raw.jsonl", Draft))
    kept = sum(summary.kept.values())
    cores = (time.process_time() - cpu) / wall
    print(f"whole build: {asked} answers, {kept} kept, {asked / wall:.0f}/s ({cores:.1f} cores busy)")


def resume(folder: Path, rows: int) -> None:
    """Begin a build whose ledger holds so many drafts."""
    texts = [f"{PROSE}{verdict}." * 2 for verdict in VERDICTS.values()]
    score = [0.2, 0.5, 0.8]
    write_rows(folder / "ratings.jsonl", [Rating(f"{i}.jpg", score[i % 3], "d", "train") for i in range(rows)])
    drafts = (
        Draft(str(folder / f"{i}.jpg"), score[i % 3], "d", 0, texts[i % 3], "near: x" if i % 4 else None, "m")
        for i in range(rows)
    )
    write_rows(folder / "cot" / "raw.jsonl", drafts)
    teacher = Teacher(EndpointConfig("http://localhost/v1", "m"))
    began = time.monotonic()
    begun = open_build(CotConfig(folder / "ratings.jsonl", folder / "cot", n=rows * 2, teacher=teacher))
    left = sum(map(len, open_attempts(begun.ratings, begun.drafts, 3).values()))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"resume: {rows:,} drafts in {time.monotonic() - began:.1f} s, {memory:.0f} MB; {left:,} left to ask")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rows", type=int, default=100_000)
    arguments = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Queue()
    server = spawn.Process(target=serve, args=(ready,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ready.get()}/v1"
    print(f"ideal: {IN_FLIGHT / LATENCY:.0f}/s")
    for name, text in (("short questions", "hello"), ("questions of 60 kB", "x" * 60_000)):
        asyncio.run(compare(url, name, text, arguments.seconds))
    with tempfile.TemporaryDirectory() as folder:
        whole_build(url, Path(folder))
    server.terminate()
    with tempfile.TemporaryDirectory() as folder:
        child = spawn.Process(target=resume, args=(Path(folder), arguments.rows))  # its memory is its own
        child.start()
        child.join()


if __name__ == "__main__":
    main()
