"""A Ray cluster that is not there, for `scale.py`: as much of Ray's HTTP as the control plane asks, in one process.

Nodes with labels (State API), Job Submission and an empty Serve. A submitted job reports to the API as an attempt does,
with its token: an event, a step and its progress every `report_every_s`, and after `run_s` its success. It computes
nothing. HTTP answers wait `answer_s`, which stands for Ray's own time.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

sys.path.insert(0, str(Path(__file__).parents[1]))  # for benchmarks, when run as a script

from benchmarks.control_plane_load import Connection

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_STEPS = 1_000_000
_CONNECTIONS = 64  # of all drivers together to the API
_GPUS = 8
_KEEP_ALIVE_S = 75  # as Ray's dashboard, which is aiohttp's; a client's own time for it must be shorter


@dataclass(frozen=True)
class Size:
    """nodes: of each ten, eight for the policy, one for the reference and one for drivers."""

    nodes: int
    run_s: float
    report_every_s: float
    answer_s: float


@dataclass
class Cluster:
    """The ASGI application."""

    size: Size
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    drivers: set[asyncio.Task[None]] = field(default_factory=set)
    requests: int = 0
    looked_at: list[str] = field(default_factory=list)  # jobs whose status was asked for
    callbacks: int = 0
    refused: int = 0  # drivers whose reports the API does not take
    longest_s: float = 0.0  # that a driver has waited for an answer since it was last asked about
    _connections: "asyncio.LifoQueue[Connection]" = field(default_factory=asyncio.LifoQueue)
    _made: int = 0  # connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        status, answer = self._answer(scope["method"], scope["path"], body)
        if not scope["path"].startswith("/bench"):
            self.requests += 1
            await asyncio.sleep(self.size.answer_s)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        found: Any
        match method, path.strip("/").split("/"):
            case "GET", ["api", "v0", "nodes"]:
                found = {"data": {"result": {"result": [_node(number) for number in range(self.size.nodes)]}}}
            case "POST", ["api", "jobs"]:
                return self._submit(json.loads(body))
            case "GET", ["api", "jobs", id]:
                if id not in self.jobs:
                    return 404, b"no such job"
                self.looked_at.append(id)
                found = self.jobs[id]
            case "POST", ["api", "jobs", id, "stop"]:
                self.jobs[id]["status"] = "STOPPED"
                found = {"stopped": True}
            case "GET", ["api", "serve", "applications"]:
                found = {"applications": {}}
            case "GET", ["bench"]:
                running = sum(job["status"] == "RUNNING" for job in self.jobs.values())
                found = {"requests": self.requests, "callbacks": self.callbacks, "drivers": running}
                found |= {"reporting": len(self.drivers)}  # with those that were stopped and still wait for an answer
                found |= {"refused": self.refused, "longest_s": round(self.longest_s, 2)}
                self.longest_s = 0.0
            case "POST", ["bench"]:  # drivers that run; those without an environment are silent
                for id, environment in json.loads(body).items():
                    self._begin(id, environment)
                found = {}
            case "DELETE", ["bench"]:
                for job in self.jobs.values():
                    job["status"] = "STOPPED"
                found = {}
            case _:  # PUT of Serve's list, and the API's health where nobody else is the API
                found = {}
        return 200, json.dumps(found).encode()

    def _submit(self, asked: dict[str, Any]) -> tuple[int, bytes]:
        id = asked["submission_id"]
        if id in self.jobs:
            return 500, b"there is such a job"
        self._begin(id, asked["runtime_env"]["env_vars"])
        return 200, json.dumps({"submission_id": id}).encode()

    def _begin(self, id: str, environment: dict[str, str]) -> None:
        self.jobs[id] = _job(id)
        if environment:
            driver = asyncio.create_task(self._drive(id, environment))
            self.drivers.add(driver)
            driver.add_done_callback(self.drivers.discard)

    async def _drive(self, id: str, environment: dict[str, str]) -> None:
        ends_at = asyncio.get_running_loop().time() + self.size.run_s
        started = {"kind": "event", "type": "stage.started", "stage": "train", "message": "Training.", "data": {}}
        told: int | None = await self._report(environment, 0, [started])
        while told is not None and asyncio.get_running_loop().time() < ends_at and self.jobs[id]["status"] == "RUNNING":
            await asyncio.sleep(self.size.report_every_s)
            values = {"loss": 0.5, "rewards/margins": 0.1, "rewards/accuracies": 0.7, "grad_norm": 1.5}
            reports: list[dict[str, Any]] = [
                {"kind": "metrics", "step": told, "values": values},
                {"kind": "progress", "stage": "train", "done": told, "total": _STEPS, "unit": "steps"},
            ]
            told = await self._report(environment, told, reports)
        if self.jobs[id]["status"] == "STOPPED":
            return
        if told is not None:
            told = await self._report(environment, told, [{"kind": "outcome", "result": "succeeded"}])
        self.jobs[id]["status"] = "SUCCEEDED" if told is not None else "FAILED"

    async def _report(self, environment: dict[str, str], told: int, reports: list[dict[str, Any]]) -> int | None:
        """How many reports have been told with these; None if the API does not take them."""
        path = f"/internal/attempts/{environment['PLUMBLINE_ATTEMPT_ID']}/reports"
        headers = {"Authorization": f"Bearer {environment['PLUMBLINE_ATTEMPT_TOKEN']}"}
        body = json.dumps({"first_seq": told + 1, "reports": reports}).encode()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while True:
            connection = await self._connection(environment["PLUMBLINE_API_URL"])
            try:
                status, _ = await connection.request("POST", path, headers, body)
            except (OSError, EOFError):
                connection.close()
                status = 503
            finally:
                self._connections.put_nowait(connection)
            if status == 200:
                self.callbacks += 1
                self.longest_s = max(self.longest_s, loop.time() - begun)
                return told + len(reports)
            if status < 500:
                self.refused += 1
                return None
            await asyncio.sleep(1)  # as an attempt does, it comes again

    async def _connection(self, api_url: str) -> Connection:
        """One that nobody else uses until it is put back."""
        if self._made < _CONNECTIONS and self._connections.empty():
            self._made += 1
            return Connection(api_url)
        return await self._connections.get()


def _node(number: int) -> dict[str, Any]:
    pool = {8: "reference", 9: "control"}.get(number % 10, "policy")
    gpus = {} if pool == "control" else {"GPU": float(_GPUS), "accelerator_type:H100": 1.0}
    labels = {"pool": pool, "ray.io/node-id": f"{number:056x}"}
    return {
        "node_id": f"{number:056x}",
        "node_ip": f"10.0.{number // 250}.{number % 250}",
        "state": "ALIVE",
        "labels": labels | ({"ray.io/accelerator-type": "H100"} if gpus else {}),
        "resources_total": {"CPU": 128.0, "memory": 1e12, "object_store_memory": 2e11} | gpus,
    }


def _job(id: str) -> dict[str, Any]:
    return {"submission_id": id, "status": "RUNNING", "message": "Job is running.", "driver_node_id": "0" * 56}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--run-s", type=float, default=30)
    parser.add_argument("--report-every-s", type=float, default=2)
    parser.add_argument("--answer-s", type=float, default=0.005)
    asked = vars(parser.parse_args())
    port = asked.pop("port")
    uvicorn.run(
        Cluster(Size(**asked)),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        lifespan="off",
        timeout_keep_alive=_KEEP_ALIVE_S,
    )


if __name__ == "__main__":
    main()
