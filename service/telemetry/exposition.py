"""Prometheus's text format, and the controller's own port for it, which also tells whether it stands still."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from service.settings import Settings
from service.telemetry.metrics import REGISTRY
from service.telemetry.storage_metrics import watch_storage

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

STOOD_STILL_S = 60.0  # far longer than the longest pass computes


class _Families(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(families: Sequence[Metric] = ()) -> bytes:
    """What this process counts, and `families`."""
    once = CollectorRegistry()
    once.register(_Families(families))
    return generate_latest(REGISTRY) + generate_latest(once)


@contextmanager
def served(settings: Settings) -> Iterator[None]:
    """Answer in a thread on `settings.metrics_port`, if it is set: GET /metrics with what this process counts, and GET
    /healthz, with 503 if the running event loop has not turned for `STOOD_STILL_S`.

    Neither waits for a database or a storage. Raises OSError if the port is taken.
    """
    if settings.metrics_port is None:
        yield
        return
    watch_storage(settings.storage_root)
    turning = _Turning()
    server, thread = start_http_server(settings.metrics_port, settings.host, REGISTRY)
    metrics = server.get_app()
    assert metrics is not None

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        chosen = turning.answer if environ["PATH_INFO"] == "/healthz" else metrics
        return chosen(environ, start_response)

    server.set_app(app)
    log.info("metrics at http://%s:%s/metrics", settings.host, settings.metrics_port)
    try:
        yield
    finally:
        turning.stop()
        server.shutdown()
        server.server_close()
        thread.join()


class _Turning:
    """When the running event loop last turned."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._turn()

    def _turn(self) -> None:
        self._at = time.monotonic()
        self._next = self._loop.call_later(1, self._turn)

    def stop(self) -> None:
        self._next.cancel()

    def answer(self, _environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        still_s = time.monotonic() - self._at
        start_response("200 OK" if still_s < STOOD_STILL_S else "503 Service Unavailable", [])
        return [f"The event loop turned {still_s:.0f} s ago.\n".encode()]
