"""What every request leaves behind: figures for Prometheus, a line in the log, and headers that browsers heed."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lateint_server.serving import Served

LOG = logging.getLogger("lateint_server")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
HEADERS = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class Figures:
    """Counters of one server."""

    def __init__(self, indexes: dict[str, Served]) -> None:
        self.registry = CollectorRegistry()
        self._indexes = indexes
        self.requests = Counter(
            "lateint_requests", "Requests by route and status", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "lateint_request_seconds", "Time from request to answer", ["route"], buckets=SECONDS, registry=self.registry
        )
        self.together = Histogram(
            "lateint_search_together",
            "Queries that were searched together",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self.registry.register(self)
        self._of: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}  # to find one of each takes a while

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts a request."""
        key = (method, route, status)
        if key not in self._of:
            self._of[key] = self.requests.labels(*key), self.seconds.labels(route)
        requests, times = self._of[key]
        requests.inc()
        times.observe(seconds)

    def collect(self) -> Iterable[Metric]:
        """Gauges, as they are when they are asked for."""
        gauges = {
            name: GaugeMetricFamily(f"lateint_{name}", text, labels=["index"])
            for name, text in {
                "documents": "Documents in an index",
                "tokens": "Tokens in an index, deleted ones included",
                "generation": "Commits of an index",
                "searches_waiting": "Searches that wait",
                "writes_waiting": "Writes that wait",
            }.items()
        }
        for name, served in self._indexes.items():
            view = served.view()
            values = (len(view), view.tokens, view.generation, len(served.searches), len(served.writes))
            for gauge, value in zip(gauges.values(), values, strict=True):
                gauge.add_metric([name], value)
        return gauges.values()


class Watch:
    """Middleware that times requests, counts and logs them."""

    def __init__(self, app: ASGIApp, *, figures: Figures, slow: float, log_requests: bool) -> None:
        self.app, self.figures, self.slow, self.log_requests = app, figures, slow, log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 499  # as nobody was there any more to take an answer

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                there = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in HEADERS if pair[0] not in there)]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            self._note(scope, status, time.perf_counter() - began)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "")
        self.figures.count(scope["method"], route, status, seconds)
        slow = seconds > self.slow
        level = logging.ERROR if status >= 500 else logging.WARNING if slow else logging.INFO
        if slow or status >= 500 or self.log_requests:
            client = scope.get("client")
            about = {
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "ms": round(1e3 * seconds, 2),
                "client": client[0] if client else None,
                **scope.get("state", {}).get("about", {}),
            }
            LOG.log(level, "slow" if slow else "request", extra=about)


class Lines(logging.Formatter):
    """A record as one line of JSON."""

    plain = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in record.__dict__.items() if name not in self.plain}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_to_stderr(level: str) -> None:
    """Sends what the server and uvicorn log to standard error, as lines of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    for name in ("lateint_server", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = ([handler], False) if name != "uvicorn.error" else ([], True)
        logger.setLevel(level.upper())
