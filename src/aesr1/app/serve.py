"""An OpenAI-compatible HTTP server for a local model.

A request becomes one `ReplyRequest` for each reply. One thread generates in batches.
"""

# No `from __future__ import annotations`: FastAPI reads its handlers' annotations, whose names are imported late.

import asyncio
import os
import secrets
import signal
import socket
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aesr1 import __version__
from aesr1.app.batching import Batcher
from aesr1.app.chat_request import GeneratedReply, HttpRefusal, ServeConfig, parse_chat_request, stopping_refusal
from aesr1.contract import VERSION
from aesr1.errors import AesError, install
from aesr1.terminal import say

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI, Request

DECODERS = 4  # pictures opened at the same time; limits memory
CLOSING_SECONDS = 1.0  # for the model to end its token
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
"""Names of this machine for itself."""


def create_app(config: ServeConfig) -> "FastAPI":
    """The application with its loaded model. AesError where FastAPI or the model is missing."""
    try:
        from fastapi import FastAPI, Request
        from fastapi.responses import JSONResponse, Response
        from starlette.exceptions import HTTPException
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.requests import ClientDisconnect
    except ImportError as error:
        raise AesError(f"serving needs {error.name}", fix=install("serve")) from error
    from aesr1.model.load import DEFAULT, load

    vlm = load(config.model or DEFAULT, max_pixels=config.max_pixels, device=config.device, for_scoring=True)
    about = {"model": vlm.name, "revision": vlm.revision, "contract": VERSION, "aesr1": __version__}
    card = {"id": vlm.name, "object": "model", "created": int(time.time()), "owned_by": "aesr1"}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.batcher = Batcher(vlm, config)
        app.state.decoders = ThreadPoolExecutor(DECODERS, "aesr1-decode")
        yield
        app.state.decoders.shutdown(wait=False, cancel_futures=True)
        app.state.ended = await asyncio.to_thread(app.state.batcher.close, CLOSING_SECONDS)

    # no documentation pages: they load scripts from other servers
    app = FastAPI(title="aesr1", version=__version__, lifespan=lifespan, openapi_url=None)
    app.state.model, app.state.ended = vlm.name, True
    if config.host in LOOPBACK:  # else a web page could reach this server under a name of its own (DNS rebinding)
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK])

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", **about}

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        _require_key(request, config)
        return {"object": "list", "data": [card]}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        _require_key(request, config)
        try:
            body = await _body(request, config)
        except ClientDisconnect:
            return Response(status_code=499)
        loop = asyncio.get_running_loop()
        reply_requests = await loop.run_in_executor(app.state.decoders, parse_chat_request, body, vlm, config)
        try:
            replies = await _unless_gone(request, app.state.batcher.submit(reply_requests))
        except asyncio.CancelledError:  # uvicorn cancels requests after the grace period; tell the client
            raise stopping_refusal() from None
        return Response(status_code=499) if replies is None else JSONResponse(_completion(vlm.name, replies))

    @app.exception_handler(AesError)
    async def refused(_: Request, error: AesError) -> JSONResponse:
        status, code = (error.status, error.code) if isinstance(error, HttpRefusal) else (400, "invalid_request")
        return JSONResponse(_error(f"{error.problem}; {error.fix}", status, code), status)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        problem = f"{request.method} {request.url.path}: {error.detail}"
        fix = "there are GET /health, GET /v1/models and POST /v1/chat/completions"
        return JSONResponse(_error(f"{problem}; {fix}", error.status_code, "unknown_url"), error.status_code)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        problem = f"the model failed: {type(error).__name__}"
        return JSONResponse(_error(f"{problem}; see what the server printed", 500, "internal_error"), 500)

    return app


def _error(message: str, status: int, code: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _require_key(request: "Request", config: ServeConfig) -> None:
    given, wanted = request.headers.get("authorization", ""), f"Bearer {config.api_key}"
    if config.api_key is not None and not secrets.compare_digest(given.encode(), wanted.encode()):
        fix = "send the server's key: Authorization: Bearer KEY"
        raise HttpRefusal("the API key is missing or wrong", fix=fix, status=401, code="invalid_api_key")


async def _body(request: "Request", config: ServeConfig) -> bytes:
    """The request's body. HttpRefusal where it is not JSON by its type, too large, or too slow."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        fix = "send Content-Type: application/json"  # web pages may send other types without asking
        raise HttpRefusal("the request is not JSON", fix=fix, status=415, code="unsupported_media_type")
    try:
        async with asyncio.timeout(config.body_seconds):
            return await _read_body(request, config.max_body)
    except TimeoutError:
        fix = f"send the whole request within {config.body_seconds:g} s"
        raise HttpRefusal("the request is not complete", fix=fix, status=408, code="timeout") from None


async def _read_body(request: "Request", limit: int) -> bytes:
    """The bytes of a body.

    A body that is too large is read a little further, because few clients read an answer while sending.
    """
    body, size = bytearray(), 0
    async for piece in request.stream():
        size += len(piece)
        if size <= limit:
            body += piece
        elif size > 4 * limit:
            break
    if size > limit:
        fix = "send a smaller copy of the picture"
        raise HttpRefusal(f"the request is larger than {limit:,} bytes", fix=fix, status=413, code="request_too_large")
    return bytes(body)


async def _unless_gone(request: "Request", futures: Sequence[Future[GeneratedReply]]) -> list[GeneratedReply] | None:
    """The replies, or None when the client disconnects; its waiting requests are then cancelled."""

    async def answered() -> list[GeneratedReply]:
        return await asyncio.gather(*map(asyncio.wrap_future, futures))

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    replies, left = asyncio.create_task(answered()), asyncio.create_task(disconnected())
    both: list[asyncio.Task[Any]] = [replies, left]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        return replies.result() if replies.done() else None
    finally:
        replies.cancel()
        left.cancel()


def _completion(name: str, replies: Sequence[GeneratedReply]) -> dict[str, Any]:
    """OpenAI's chat.completion. The prompt is counted once for all replies."""
    given, written = replies[0].prompt_tokens, sum(reply.reply_tokens for reply in replies)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": name,
        "choices": [
            {"index": i, "message": {"role": "assistant", "content": reply.text}, "finish_reason": reply.finish}
            for i, reply in enumerate(replies)
        ],
        "usage": {"prompt_tokens": given, "completion_tokens": written, "total_tokens": given + written},
    }


def uvicorn_config(app: "FastAPI", config: ServeConfig) -> "uvicorn.Config":
    """uvicorn with limits that it lacks: on connections, and on the time that the head of a request may take."""
    import h11
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class LimitedProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > config.max_connections:
                transport.close()
            self._wait_for_head()

        def _wait_for_head(self) -> None:
            self.loop.call_later(config.header_seconds, self._close_without_head, self.cycle)

        def _close_without_head(self, cycle: object) -> None:
            if self.transport.is_closing():
                return
            if self.cycle is cycle and self.conn.their_state is h11.IDLE:
                self.transport.close()
            else:
                self._wait_for_head()

    return uvicorn.Config(
        app,
        http=LimitedProtocol,
        log_level="warning",
        access_log=False,
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=config.grace,
    )


def serve(config: ServeConfig) -> None:
    """Serve until Ctrl-C or SIGTERM; running requests then get `grace` seconds."""
    try:
        import uvicorn
    except ImportError as error:
        raise AesError(f"serving needs {error.name}", fix=install("serve")) from error
    listener = _listen(config.host, config.port)
    with listener:
        app = create_app(config)
        server = uvicorn.Server(uvicorn_config(app, config))
        # uvicorn raises the signals again once it has shut down, and Ctrl-C is how a server ends, not an error
        before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        host, port = listener.getsockname()[:2]
        address = f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"
        say(f"aesr1 serves {app.state.model} at {address}; Ctrl-C ends it")
        try:
            server.run(sockets=[listener])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if not app.state.ended:
                say("the model was still at work and was stopped")
                os._exit(0)  # a thread within torch cannot be ended in another way


def _listen(host: str, port: int) -> socket.socket:
    """Bind the address before the model loads, so that a used one fails at once."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        problem = f"{host} port {port} cannot be served: {error.strerror or error}"
        raise AesError(problem, fix="pass another host or port, or end what listens there") from error
