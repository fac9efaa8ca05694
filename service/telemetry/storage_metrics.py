"""How full the storage is that control plane and cluster share."""

import shutil
from pathlib import Path

from prometheus_client import Gauge

from service.telemetry.metrics import REGISTRY

STORAGE_BYTES = Gauge("plumbline_storage_bytes", "Size of the file system of the storage", registry=REGISTRY)
STORAGE_FREE_BYTES = Gauge("plumbline_storage_free_bytes", "What is free of it", registry=REGISTRY)


def watch_storage(root: Path) -> None:
    """Look whenever somebody asks for the metrics. A storage that cannot be looked at has no free bytes."""
    STORAGE_BYTES.set_function(lambda: _usage(root)[0])
    STORAGE_FREE_BYTES.set_function(lambda: _usage(root)[1])


def _usage(root: Path) -> tuple[float, float]:
    try:
        found = shutil.disk_usage(root)
    except OSError:
        return 0.0, 0.0
    return float(found.total), float(found.free)
