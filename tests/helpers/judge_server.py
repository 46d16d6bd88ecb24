"""An OpenAI-compatible server over real HTTP that answers as a test says."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def said(text: str, tokens: Sequence[tuple[str, Mapping[str, float]]] | None = None) -> dict[str, Any]:
    """A chat completion that says this; tokens: each with the probabilities that are listed at its place."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if tokens is not None:
        choice["logprobs"] = {
            "content": [
                {**_entry(token, listed.get(token, 1e-9)), "top_logprobs": [_entry(*pair) for pair in listed.items()]}
                for token, listed in tokens
            ]
        }
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


def _entry(token: str, probability: float) -> dict[str, Any]:
    return {"token": token, "logprob": math.log(probability), "bytes": None}


def refused(message: str, status: int = 400) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"message": message, "code": None}}


class JudgeServer:
    """`with JudgeServer(answer) as server`: answer(number, body) gives a completion, or a status and a body."""

    def __init__(
        self,
        answer: Callable[[int, dict[str, Any]], dict[str, Any] | tuple[int, dict[str, Any]]],
        *,
        models: Sequence[str] = ("judge",),
        port: int = 0,
    ) -> None:
        self.answer, self.models = answer, models
        self.requests: list[dict[str, Any]] = []
        self.answered = 0
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.reply(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in server.models]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    number = len(server.requests)
                    server.requests.append(body)
                    known = body["model"] in server.models
                    given = server.answer(number, body) if known else refused("no such model", 404)
                    status, content = given if isinstance(given, tuple) else (200, given)
                    server.answered += status == 200
                self.reply(status, content)

            def reply(self, status: int, content: dict[str, Any]) -> None:
                raw = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that went away
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> JudgeServer:
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
