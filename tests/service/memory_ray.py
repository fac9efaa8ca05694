"""Ray's Job Submission API over HTTP, with jobs that are no processes: a test says what becomes of them."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx

from service.cluster.jobs import RayJobStatus


@dataclass
class Driver:
    """What Ray knows of one submission. `stopping`: asked to stop before it had a node. `memory`: bytes that it asked
    for. `is_placeless`: it never had a node."""

    status: RayJobStatus = RayJobStatus.PENDING
    stopping: bool = False
    memory: int = 0
    is_placeless: bool = False


@dataclass
class MemoryRay(httpx.AsyncBaseTransport):
    """As the real one: a known submission ID is refused with 500, an unknown job is 404, and one that waits for a node
    can be stopped only when it has got it."""

    drivers: dict[str, Driver] = field(default_factory=dict)
    # awaited before and after each request takes effect: where a test crashes the controller, or lets a client speak
    between: Callable[[], Awaitable[None]] | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.between:
            await self.between()
        response = self._answer(request.method, request.url.path, await request.aread())
        if self.between:
            await self.between()
        return response

    def place(self, submission_id: str) -> None:
        """Give it a node."""
        driver = self.drivers[submission_id]
        driver.status = RayJobStatus.STOPPED if driver.stopping else RayJobStatus.RUNNING

    def _answer(self, method: str, path: str, body: bytes) -> httpx.Response:
        match method, path.strip("/").split("/"):
            case "POST", ["api", "jobs"]:
                asked = json.loads(body)
                submission_id = asked["submission_id"]
                if submission_id in self.drivers:
                    return httpx.Response(500, text=f"Job with submission_id {submission_id} already exists")
                self.drivers[submission_id] = Driver(memory=asked["entrypoint_memory"])
                return httpx.Response(200, json={"submission_id": submission_id})
            case "GET", ["api", "jobs", submission_id] if submission_id in self.drivers:
                driver = self.drivers[submission_id]
                status = driver.status
                node_id = None if status is RayJobStatus.PENDING or driver.is_placeless else "a node"
                return httpx.Response(200, json={"status": status, "message": None, "driver_node_id": node_id})
            case "POST", ["api", "jobs", submission_id, "stop"] if submission_id in self.drivers:
                driver = self.drivers[submission_id]
                driver.stopping = True
                if driver.status is RayJobStatus.RUNNING:
                    driver.status = RayJobStatus.STOPPED
                return httpx.Response(200, json={"stopped": True})
            case _:
                return httpx.Response(404, text=f"there is no {path}")
