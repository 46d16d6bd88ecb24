"""Our own server on a free port, in a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from aesr1.server.application import create_app
from aesr1.server.serve import uvicorn_config
from aesr1.server.settings import ServeConfig


@contextmanager
def running(config: ServeConfig, app: FastAPI | None = None) -> Iterator[str]:
    """Serve for the block; yields the address. `app`: where it was made before."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn_config(app or create_app(config), config))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
