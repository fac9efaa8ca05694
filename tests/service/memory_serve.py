"""Ray Serve's REST API over HTTP, with applications that serve nothing: a test says what becomes of them."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from service.cluster.serve import AppStatus


@dataclass
class App:
    args: dict[str, Any]
    status: AppStatus = AppStatus.DEPLOYING
    message: str = ""


@dataclass
class MemoryServe(httpx.AsyncBaseTransport):
    """As the real one: a PUT is the whole list, what is not in it is deleted in its own time, and an application that
    is put as it is stays untouched. `puts` are the names in each list; `started` counts how often each was started."""

    apps: dict[str, App] = field(default_factory=dict)
    puts: list[set[str]] = field(default_factory=list)
    started: dict[str, int] = field(default_factory=dict)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            self._put(json.loads(await request.aread())["applications"])
            return httpx.Response(200)
        shown = {
            name: {"status": app.status, "message": app.message, "deployed_app_config": {"args": app.args}}
            for name, app in self.apps.items()
        }
        return httpx.Response(200, json={"applications": shown})

    def run(self) -> None:
        """What is being deployed comes up, and what is being deleted is gone."""
        self.apps = {name: app for name, app in self.apps.items() if app.status is not AppStatus.DELETING}
        for app in self.apps.values():
            if app.status is AppStatus.DEPLOYING:
                app.status = AppStatus.RUNNING

    def fail(self, weights: str, message: str) -> None:
        """The engine on these weights does not come up."""
        for app in self.apps.values():
            if app.args["weights"] == weights:
                app.status, app.message = AppStatus.DEPLOY_FAILED, message

    @property
    def running(self) -> dict[str, App]:
        """By the weights that they hold."""
        return {app.args["weights"]: app for app in self.apps.values() if app.status is AppStatus.RUNNING}

    def _put(self, applications: list[dict[str, Any]]) -> None:
        self.puts.append({app["name"] for app in applications})
        for app in applications:
            held = self.apps.get(app["name"])
            if held is None or held.args != app["args"] or held.status is AppStatus.DELETING:
                self.apps[app["name"]] = App(app["args"])
                self.started[app["args"]["weights"]] = self.started.get(app["args"]["weights"], 0) + 1
        for name, app in self.apps.items():
            if name not in self.puts[-1]:
                app.status = AppStatus.DELETING
