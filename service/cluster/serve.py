"""Ray Serve's REST API: the list of applications as a whole, and how each of them is doing."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx

from service.cluster.http import request


class AppStatus(StrEnum):
    NOT_STARTED = "NOT_STARTED"
    DEPLOYING = "DEPLOYING"
    RUNNING = "RUNNING"
    UNHEALTHY = "UNHEALTHY"  # it ran; Serve is replacing a replica
    DEPLOY_FAILED = "DEPLOY_FAILED"
    DELETING = "DELETING"


@dataclass(frozen=True)
class Application:
    """What is to be served: `import_path` names a builder that is called with `args` on the cluster."""

    name: str
    import_path: str
    args: dict[str, Any]

    @property
    def schema(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "route_prefix": f"/{self.name}",
            "import_path": self.import_path,
            "args": self.args,
        }


@dataclass(frozen=True)
class ServedApplication:
    """What Serve has. `message` gathers what it says about the application and its unhealthy deployments."""

    name: str
    status: AppStatus
    message: str
    args: dict[str, Any]


class RayServe:
    def __init__(self, client: httpx.AsyncClient, *, host: str, port: int) -> None:
        """host, port: where Serve's proxy listens; fixed by the first application that is ever put."""
        self._client = client
        self._http_options = {"host": host, "port": port}

    async def put(self, applications: list[Application]) -> None:
        """Make this the whole list: what is not in it is taken down, what is unchanged stays untouched. Returns when
        Serve has taken note, long before anything runs."""
        body = {
            "proxy_location": "HeadOnly",  # one door; replicas are reached from there wherever they are
            "http_options": self._http_options,
            "applications": [application.schema for application in applications],
        }
        await request(self._client, "PUT", "/api/serve/applications/", json=body, timeout=120)

    async def get(self) -> dict[str, ServedApplication]:
        """By name. Empty if Serve has never been started."""
        response = await request(
            self._client, "GET", "/api/serve/applications/", params={"api_type": "declarative"}, timeout=60
        )
        found: dict[str, dict[str, Any]] = response.json()["applications"]
        return {name: _served(name, details) for name, details in found.items()}


def _served(name: str, details: dict[str, Any]) -> ServedApplication:
    unwell = [
        f"{deployment}: {state['message']}"
        for deployment, state in (details.get("deployments") or {}).items()
        if state.get("message") and state.get("status") != "HEALTHY"
    ]
    message = without_tracebacks("\n".join([details.get("message") or "", *unwell]))
    config = details.get("deployed_app_config") or {}
    return ServedApplication(name, AppStatus(details["status"]), message, config.get("args") or {})


def without_tracebacks(message: str) -> str:
    """What Serve says, less the frames of the Python code that it went through: the exceptions themselves stay."""
    noise = (" ", "Traceback (", "ray::", "During handling of", "The above exception was")
    return "\n".join(line for line in message.splitlines() if line.strip() and not line.startswith(noise))
