"""What every reconciler works with."""

from dataclasses import dataclass, field

import httpx

from service.cluster.jobs import RayJobs
from service.cluster.nodes import RayNodes
from service.cluster.serve import RayServe
from service.db.session import Database
from service.settings import Settings


@dataclass(frozen=True)
class ClusterCode:
    """What the cluster runs, by name: the control plane never imports it."""

    attempt: str = "python -m workers.run"  # a command
    export: str = "python -m workers.checkpoint_export"  # a command
    serving: str = "workers.serving.app:build"  # a builder of a Serve application


@dataclass(frozen=True)
class Controller:
    settings: Settings
    database: Database
    jobs: RayJobs
    nodes: RayNodes
    serve: RayServe
    code: ClusterCode


@dataclass
class Since:
    """Remembers for how long something has been so, by key. In memory: a restart only makes us wait longer."""

    _seen: dict[str, float] = field(default_factory=dict)

    def lasting_s(self, key: str, now: float) -> float:
        """Seconds since `key` was first asked about without `forget` in between. now: a monotonic clock."""
        return now - self._seen.setdefault(key, now)

    def has(self, key: str) -> bool:
        """Whether it has been asked about without `forget` since."""
        return key in self._seen

    def forget(self, key: str) -> None:
        self._seen.pop(key, None)

    def keep_only(self, keys: set[str]) -> None:
        self._seen = {key: since for key, since in self._seen.items() if key in keys}


def make_controller(
    settings: Settings, database: Database, client: httpx.AsyncClient, code: ClusterCode | None = None
) -> Controller:
    """client: from `service.cluster.http.connect`."""
    port = httpx.URL(settings.serve_url).port or 80
    serve = RayServe(client, host=settings.serve_host, port=port)
    return Controller(settings, database, RayJobs(client), RayNodes(client), serve, code or ClusterCode())
