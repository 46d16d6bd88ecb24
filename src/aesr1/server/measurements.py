"""What the server counts and measures, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
TENTHS = tuple(tenth / 10 for tenth in range(1, 11))


class Measurements:
    """One server's numbers. Names begin with aesr1_; times are in seconds."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        """`waiting` gives the number of requests that wait for the model."""
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._registry = registry
        self.requests = Counter("aesr1_requests", "Answered requests.", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            "aesr1_request_seconds",
            "Time from the head of a request to its answer.",
            ["path"],
            buckets=SECONDS,
            registry=registry,
        )
        self.pictures = Counter(
            "aesr1_pictures", "Pictures that were sent to be scored.", ["outcome"], registry=registry
        )
        self.scores = Histogram("aesr1_score", "Scores that were given.", buckets=TENTHS, registry=registry)
        self.batches = Histogram("aesr1_batch_size", "Requests in a batch.", buckets=BATCHES, registry=registry)
        Gauge("aesr1_waiting", "Requests that wait for the model.", registry=registry).set_function(waiting)

    def text(self) -> bytes:
        """All numbers in Prometheus's text format."""
        return generate_latest(self._registry)


class MeasuredRequests:
    """Middleware that counts requests and their seconds by the address that answered."""

    def __init__(self, app: ASGIApp, measurements: Measurements) -> None:
        self._app, self._measurements = app, measurements

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it once its answer is whole."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            path = getattr(scope.get("route"), "path", "unknown")  # a name that clients choose would fill the memory
            self._measurements.requests.labels(path, status).inc()
            self._measurements.seconds.labels(path).observe(time.monotonic() - begun)
