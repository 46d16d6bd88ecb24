"""Serves the application until Ctrl-C: the socket, uvicorn and its limits."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import TYPE_CHECKING

from aesr1.errors import AesError, install
from aesr1.server.settings import ServeConfig
from aesr1.terminal import say

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI


def uvicorn_config(app: FastAPI, config: ServeConfig) -> uvicorn.Config:
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
        import fastapi  # noqa: F401  # before the socket and the model
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise AesError(f"serving needs {error.name}", fix=install("serve")) from error
    listener = _listen(config.host, config.port)
    with listener:
        from aesr1.server.application import create_app

        app = create_app(config)
        server = uvicorn.Server(uvicorn_config(app, config))
        # uvicorn raises the signals again once it has shut down, and Ctrl-C is how a server ends, not an error
        before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        host, port = listener.getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        say(f"aesr1 serves {app.state.vlm.name} at {address}/v1, and a page at {address}; Ctrl-C ends it")
        try:
            server.run(sockets=[listener])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if not app.state.ended:
                say("what was still at work was stopped")
                os._exit(0)  # a thread within torch, or one that fetches, cannot be ended in another way


def _listen(host: str, port: int) -> socket.socket:
    """Bind the address before the model loads, so that a used one fails at once."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        problem = f"{host} port {port} cannot be served: {error.strerror or error}"
        raise AesError(problem, fix="pass another host or port, or end what listens there") from error
