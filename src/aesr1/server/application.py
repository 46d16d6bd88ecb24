"""The HTTP application: its model, who may use it, its start and its end."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from fastapi import Depends, FastAPI, Request
from fastapi.security import HTTPBearer
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
from aesr1.server import score_request
from aesr1.server.addresses import OPENERS, open_to_all, with_key
from aesr1.server.batching import Batcher
from aesr1.server.errors import HttpRefusal, documented_errors, respond_to_error
from aesr1.server.measurements import MeasuredRequests, Measurements
from aesr1.server.rank_page import rank_page
from aesr1.server.settings import ServeConfig
from aesr1.worker_processes import worker_pool

DECODERS = 4
"""Threads that read chat requests, and as many that fetch pictures."""
UPLOADS = 64
"""Forms that are received at the same time; limits the temporary files."""
CLOSING_SECONDS = 1.0
"""For the model to end its token."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
"""Names of this machine for itself."""


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
    app.include_router(with_key, dependencies=key, responses=documented_errors(401) if key else None)
    for kind in (AesError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, respond_to_error)
    return app
