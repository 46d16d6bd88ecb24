"""The HTTP application: its addresses, who may use them, and what they answer."""

# No `from __future__ import annotations`: FastAPI reads the annotations of its handlers.

import asyncio
import json
import logging
import os
import secrets
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from aesr1 import __version__
from aesr1.app.reference_scores import reference_of_model
from aesr1.contract import VERSION
from aesr1.errors import AesError
from aesr1.model.load import DEFAULT, checkpoint_folder, load
from aesr1.model.model_thread import model_thread
from aesr1.model.predict import origin_of
from aesr1.server import score_request, sidecar_zip
from aesr1.server.batching import Batcher, BatchFuture
from aesr1.server.chat_request import SCHEMA as CHAT_SCHEMA
from aesr1.server.chat_request import GeneratedReply, parse_chat_request
from aesr1.server.measurements import MeasuredRequests, Measurements
from aesr1.server.rank_page import rank_page
from aesr1.server.receive import FORM, JSON, receive_form, receive_json, require_type
from aesr1.server.score_request import OpenedPicture, ScoreAnswer, ScoredPicture, ScoreOptions, ScoreRequest
from aesr1.server.settings import HttpRefusal, ServeConfig, stopping_refusal
from aesr1.worker_processes import worker_pool

T = TypeVar("T")
OPENERS, DECODERS = min(4, os.cpu_count() or 1), 4  # processes that open pictures; threads that do for chat
UPLOADS = 64  # forms received at the same time; limits the temporary files
CLOSING_SECONDS = 1.0  # for the model to end its token
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
"""Names of this machine for itself."""
EVENTS, ZIP = "text/event-stream", "application/zip"
GONE = 499
"""The status for a client that has left, as nginx has it. No client sees it."""
ERRORS = {
    400: "The request is wrong; the message says how to mend it.",
    401: "The key is missing or wrong.",
    403: "The request comes from a page of another server.",
    404: "The model is not served here.",
    408: "The body was not complete in time.",
    413: "The body is too large.",
    415: "The body is of a type that is not read here.",
    500: "The model failed.",
    503: "Too many requests are waiting; Retry-After says for how many seconds to wait.",
}


@dataclass(frozen=True)
class ErrorBody:
    """What is wrong, and what to do, in the form of OpenAI's errors."""

    message: str
    type: str
    code: str
    param: None = None


@dataclass(frozen=True)
class ErrorAnswer:
    """The answer of a request that failed."""

    error: ErrorBody


def _errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"description": ERRORS[code], "model": ErrorAnswer} for code in codes}


def _body(**schemas: dict[str, Any]) -> dict[str, Any]:
    content = {{"json": JSON, "form": FORM}[kind]: {"schema": schema} for kind, schema in schemas.items()}
    return {"requestBody": {"required": True, "content": content}}


open_to_all, with_key = APIRouter(), APIRouter()


@open_to_all.get("/", response_class=HTMLResponse)
async def page(request: Request) -> Response:
    """The web page: pictures are ranked, compared, kept or dropped, and lists are exported."""
    headers = {"Content-Security-Policy": "frame-ancestors 'none'", "X-Content-Type-Options": "nosniff"}
    return HTMLResponse(request.app.state.page, headers=headers)


@open_to_all.get("/health")
async def health(request: Request) -> dict[str, str]:
    """Whether the server answers, and with which model."""
    return {"status": "ok", **request.app.state.about}


@with_key.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
async def metrics(request: Request) -> Response:
    """Numbers for Prometheus."""
    return Response(request.app.state.measurements.text(), media_type=CONTENT_TYPE_LATEST)


@with_key.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """The served model, as OpenAI lists models."""
    return {"object": "list", "data": [request.app.state.card]}


@with_key.post(
    "/v1/chat/completions",
    responses=_errors(400, 404, 408, 413, 415, 500, 503),
    openapi_extra=_body(json=CHAT_SCHEMA),
)
async def chat(request: Request) -> Response:
    """OpenAI's chat completion about one picture."""
    state = request.app.state
    body = await receive_json(request, state.config)
    requests = await _in_thread(state.decoders, parse_chat_request, body, state.vlm, state.config)
    replies = await _unless_gone(request, map(asyncio.wrap_future, state.batcher.submit(requests)))
    return Response(status_code=GONE) if replies is None else JSONResponse(_completion(state.vlm.name, replies))


@with_key.post(
    "/v1/score",
    responses={200: {"model": ScoreAnswer, "content": {EVENTS: {}}}, **_errors(400, 403, 408, 413, 415, 500, 503)},
    openapi_extra=_body(json=score_request.ScoreBody.model_json_schema(), form=score_request.FORM_SCHEMA),
)
async def score(request: Request) -> Response:
    """Score pictures from 0 to 1, with reasons.

    A picture that cannot be read has an error in its place. With `Accept: text/event-stream` each picture is an event
    `prediction` as soon as it is scored, and the event `end` is last; else all come together in JSON.
    """
    state = request.app.state
    state.batcher.require_room(1)
    opened, options = await _opened_pictures(request, state)
    if opened is None:
        return Response(status_code=GONE)
    pictures = [each.image for each in opened if each.image is not None]
    futures = iter(state.batcher.submit([ScoreRequest(picture, options.reasons) for picture in pictures]))
    scored = [
        asyncio.create_task(_scored(state, each, options, next(futures) if each.image is not None else None))
        for each in opened
    ]
    about = {**state.about, "decoding": state.decoding[options.reasons]}
    if EVENTS in request.headers.get("accept", ""):
        return StreamingResponse(_events(scored, about), media_type=EVENTS, headers={"Cache-Control": "no-store"})
    predictions = await _unless_gone(request, scored)
    if predictions is None:
        return Response(status_code=GONE)
    return JSONResponse(asdict(ScoreAnswer(predictions=predictions, **about)))


@with_key.post(
    "/v1/sidecars",
    responses={200: {"content": {ZIP: {}}}, **_errors(400, 403, 408, 413, 415, 500, 503)},
    response_class=Response,
    openapi_extra=_body(form=sidecar_zip.FORM_SCHEMA),
)
async def sidecars(request: Request) -> Response:
    """XMP sidecars of scored pictures as a zip file. Existing ones that are sent along are merged."""
    state = request.app.state
    config = state.config
    form = await receive_form(
        request, config, state.uploads, max_files=sidecar_zip.MOST_ROWS, max_field=config.max_body
    )
    try:
        received = await sidecar_zip.read_form(form)
    finally:
        await form.close()
    zipping = _in_thread(state.zippers, sidecar_zip.zip_sidecars, received, state.vlm.name, state.vlm.revision)
    content = await _unless_gone(request, [zipping])
    return Response(status_code=GONE) if content is None else Response(content[0], media_type=ZIP)


async def _opened_pictures(request: Request, state: Any) -> tuple[list[OpenedPicture] | None, ScoreOptions]:
    """The pictures of a request, each opened or with its error, and what is wanted; None where the client has left."""
    config = state.config
    if require_type(request, JSON, FORM) == JSON:
        body = await receive_json(request, config)
        addresses, options = await _in_thread(state.decoders, score_request.parse_body, body, config)
        return await _unless_gone(request, _openings(state, addresses, options)), options
    form = await receive_form(
        request, config, state.uploads, max_files=config.max_pictures, max_field=score_request.MAX_FIELD
    )
    try:
        files, options = score_request.parse_form(form, config)
        return await _unless_gone(request, _openings(state, files, options)), options
    finally:
        await form.close()


def _openings(state: Any, sources: Sequence[Any], options: ScoreOptions) -> list[Awaitable[OpenedPicture]]:
    """What opens each picture: in a process, because the model's thread would wait for one that decodes.

    What is fetched waits for other servers, and so has threads of its own.
    """
    return [
        _in_thread(state.fetchers, score_request.open_picture, index, source, options, state.config)
        if isinstance(source, str) and source[:5].lower() != "data:"
        else _open_in_process(state, index, source, options)
        for index, source in enumerate(sources)
    ]


async def _open_in_process(state: Any, index: int, source: Any, options: ScoreOptions) -> OpenedPicture:
    """Open one picture; a process that is killed costs its own picture alone, which is tried twice."""
    async with state.opening:
        named = source if isinstance(source, str) else (source[0], source[1].read())
        for _ in range(2):
            openers = state.openers
            try:
                return await _in_thread(openers, score_request.open_picture, index, named, options, state.config)
            except BrokenProcessPool:
                if state.openers is openers:
                    state.openers = worker_pool(OPENERS, copies=False)
    name = None if isinstance(source, str) else source[0]
    return OpenedPicture(index, name, error="the process that opened it was killed, as happens where memory runs out")


def _in_thread(executor: Executor, function: Callable[..., T], *arguments: Any) -> Awaitable[T]:
    """Call what takes time outside of the event loop."""
    return asyncio.get_running_loop().run_in_executor(executor, function, *arguments)


async def _scored(
    state: Any, picture: OpenedPicture, options: ScoreOptions, future: BatchFuture | None
) -> ScoredPicture:
    row: Any = await asyncio.wrap_future(future) if future else None
    scored = picture.scored(row, state.references[options.reasons])
    state.measurements.pictures.labels("error" if scored.score is None else "scored").inc()
    if scored.score is not None:
        state.measurements.scores.observe(scored.score)
    return scored


async def _events(scored: Sequence["asyncio.Task[ScoredPicture]"], about: dict[str, str]) -> AsyncIterator[str]:
    """Server-sent events: each picture when it is scored, then `end`; or `error` where the model failed."""
    try:
        for each in asyncio.as_completed(scored):
            yield _event("prediction", asdict(await each))
        yield _event("end", about)
    except Exception as error:  # the head of the answer, with its status, was sent long ago
        logging.getLogger("uvicorn.error").exception("scoring failed")
        yield _event("error", asdict(_error_answer(error)[0]))
    finally:
        for task in scored:
            task.cancel()


def _event(name: str, fields: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(fields)}\n\n"


async def _unless_gone(request: Request, awaited: Iterable[Awaitable[T]]) -> list[T] | None:
    """The results, or None when the client disconnects; what waits is then cancelled."""
    everything: asyncio.Future[list[T]] = asyncio.gather(*awaited)
    everything.add_done_callback(lambda done: done.cancelled() or done.exception())  # else asyncio prints it
    left = asyncio.create_task(_disconnected(request))
    both: list[asyncio.Future[Any]] = [everything, left]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        return everything.result() if everything.done() else None
    except asyncio.CancelledError:  # uvicorn cancels requests after the grace period; tell the client
        raise stopping_refusal() from None
    finally:
        everything.cancel()
        left.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


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


def _error_answer(error: Exception) -> tuple[ErrorAnswer, int]:
    """What a client is told of an error, and the HTTP status."""
    if isinstance(error, AesError):
        status, code = (error.status, error.code) if isinstance(error, HttpRefusal) else (400, "invalid_request")
        message = f"{error.problem}; {error.fix}"
    elif isinstance(error, HTTPException):
        status, code = error.status_code, "unknown_url" if error.status_code in (404, 405) else "invalid_request"
        message = f"{error.detail}; GET /openapi.json describes what there is"
    else:
        status, code = 500, "internal_error"
        message = f"the model failed: {type(error).__name__}; see what the server printed"
    kind = "invalid_request_error" if status < 500 else "server_error"
    return ErrorAnswer(ErrorBody(message, kind, code)), status


async def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=GONE)
    answer, status = _error_answer(error)
    wait = getattr(error, "retry_after", None)
    headers = {**(getattr(error, "headers", None) or {}), **({"Retry-After": str(wait)} if wait else {})}
    return JSONResponse(asdict(answer), status, headers)


async def _require_key(request: Request) -> None:
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    wanted = str(request.app.state.config.api_key).encode()
    if kind.lower() != "bearer" or not secrets.compare_digest(key.encode("latin-1"), wanted):
        fix = "send the server's key: Authorization: Bearer KEY"
        raise HttpRefusal("the API key is missing or wrong", fix=fix, status=401, code="invalid_api_key")


def _call_all(functions: Sequence[Callable[[], object]], seconds: float) -> bool:
    """Call functions at the same time; whether all ended within so many seconds. What has not ended goes on."""
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    ends = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def create_app(config: ServeConfig) -> FastAPI:
    """The application with its loaded model. AesError where the model is missing."""
    openers = worker_pool(OPENERS, copies=False)
    name = config.model or DEFAULT
    thread = model_thread(config.device)
    vlm = thread.run(load, name, max_pixels=config.max_pixels, device=config.device, for_scoring=True)
    folder = checkpoint_folder(name)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state = app.state
        state.batcher = Batcher(vlm, config, thread, on_batch=state.measurements.batches.observe)
        state.decoders = ThreadPoolExecutor(DECODERS, "aesr1-decode")
        state.fetchers = ThreadPoolExecutor(DECODERS, "aesr1-fetch")
        state.zippers = ThreadPoolExecutor(1, "aesr1-zip")
        state.uploads, state.opening = asyncio.Semaphore(UPLOADS), asyncio.Semaphore(2 * OPENERS)
        yield
        closings: list[Callable[[], object]] = [state.batcher.close]
        pools = (state.openers, state.decoders, state.fetchers, state.zippers)
        closings += [partial(pool.shutdown, cancel_futures=True) for pool in pools]
        state.ended = await asyncio.to_thread(_call_all, closings, CLOSING_SECONDS)

    # no documentation pages: they load scripts from other servers
    app = FastAPI(title="aesr1", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    state = app.state
    state.config, state.vlm, state.openers, state.ended = config, vlm, openers, True
    state.about = {"model": vlm.name, "revision": vlm.revision, "contract": VERSION, "aesr1": __version__}
    state.card = {"id": vlm.name, "object": "model", "created": int(time.time()), "owned_by": "aesr1"}
    state.references = {reasons: folder and reference_of_model(folder, fast=not reasons) for reasons in (True, False)}
    state.decoding = {
        reasons: origin_of(vlm, score_request.score_settings(config, reasons=reasons)).decoding
        for reasons in (True, False)
    }
    state.measurements = Measurements(lambda: state.batcher.waiting)
    state.page = rank_page(vlm.name, config)
    if config.host in LOOPBACK:  # else a web page could reach this server under a name of its own (DNS rebinding)
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK])
    app.add_middleware(MeasuredRequests, measurements=state.measurements)
    app.include_router(open_to_all)
    key = [Depends(HTTPBearer(auto_error=False)), Depends(_require_key)] if config.api_key is not None else []
    app.include_router(with_key, dependencies=key, responses=_errors(401) if key else None)
    for kind in (AesError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _failed)
    return app
