"""Prometheus's text format, and the controller's own port for it."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from service.settings import Settings
from service.telemetry.metrics import REGISTRY
from service.telemetry.storage_metrics import watch_storage

log = logging.getLogger(__name__)


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
    """Answer GET /metrics on `settings.metrics_port` in a thread, if it is set, with what this process counts.

    Raises OSError if the port is taken.
    """
    if settings.metrics_port is None:
        yield
        return
    watch_storage(settings.storage_root)
    server, thread = start_http_server(settings.metrics_port, settings.host, REGISTRY)
    log.info("metrics at http://%s:%s/metrics", settings.host, settings.metrics_port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
