"""How full the storage is that control plane and cluster share."""

import shutil
import threading
import time
from pathlib import Path

from prometheus_client import Gauge

from service.telemetry.metrics import REGISTRY

STORAGE_BYTES = Gauge("plumbline_storage_bytes", "Size of the file system of the storage", registry=REGISTRY)
STORAGE_FREE_BYTES = Gauge("plumbline_storage_free_bytes", "What is free of it", registry=REGISTRY)
_PATIENCE_S = 0.5


def watch_storage(root: Path) -> None:
    """Look whenever somebody asks for the metrics. A storage that cannot be looked at has no free bytes."""
    look = _Look(root)
    STORAGE_BYTES.set_function(lambda: look.now()[0])
    STORAGE_FREE_BYTES.set_function(lambda: look.now()[1])


class _Look:
    """At a file system that may be a network's: one that hangs keeps a thread, and nobody who asks for the metrics."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found = (0.0, 0.0)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._began = 0.0

    def now(self) -> tuple[float, float]:
        """Its size and what is free of it, in bytes. Zeros while it hangs."""
        with self._lock:  # of two who ask at once, the second waits for the look of the first
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._look, name="storage metrics", daemon=True)
                self._began = time.monotonic()
                self._thread.start()
            thread, left_s = self._thread, self._began + _PATIENCE_S - time.monotonic()
        thread.join(max(0.0, left_s))
        return (0.0, 0.0) if thread.is_alive() else self._found

    def _look(self) -> None:
        try:
            found = shutil.disk_usage(self._root)
        except OSError:
            self._found = (0.0, 0.0)
        else:
            self._found = (float(found.total), float(found.free))
