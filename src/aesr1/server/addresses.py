"""The addresses of the server: what each receives and answers."""

# No `from __future__ import annotations`: FastAPI reads the annotations of its handlers.

import asyncio
import json
import logging
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST

from aesr1.server import score_request, sidecar_zip
from aesr1.server.batching import BatchFuture
from aesr1.server.chat_request import SCHEMA as CHAT_SCHEMA
from aesr1.server.chat_request import GeneratedReply, parse_chat_request
from aesr1.server.errors import GONE, describe_error, documented_errors, stopping_refusal
from aesr1.server.receive import FORM, JSON, receive_form, receive_json, require_type
from aesr1.server.score_request import OpenedPicture, ScoreAnswer, ScoredPicture, ScoreOptions, ScoreRequest
from aesr1.worker_processes import worker_pool

T = TypeVar("T")
OPENERS = min(4, os.cpu_count() or 1)
"""Processes that open pictures."""
EVENTS, ZIP = "text/event-stream", "application/zip"


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
    responses=documented_errors(400, 404, 408, 413, 415, 500, 503),
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
    responses={
        200: {"model": ScoreAnswer, "content": {EVENTS: {}}},
        **documented_errors(400, 403, 408, 413, 415, 500, 503),
    },
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
    responses={200: {"content": {ZIP: {}}}, **documented_errors(400, 403, 408, 413, 415, 500, 503)},
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
        yield _event("error", asdict(describe_error(error)[0]))
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
