"""Ray Job Submission: start, look at and stop the driver of an attempt."""

import math
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx

from service.cluster.http import ClusterRefused, end_of, request

_MAX_TAIL_BYTES = 2 * 2**20  # a line may be of any length

_LATELY_S = 30.0


class RayJobStatus(StrEnum):
    PENDING = "PENDING"  # its supervisor has no place on a node yet
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def terminal(self) -> bool:
        """Whether the driver's process has ended, and with it every actor it started."""
        return self in {RayJobStatus.STOPPED, RayJobStatus.SUCCEEDED, RayJobStatus.FAILED}


@dataclass(frozen=True)
class RayJob:
    """An observation. `message` is Ray's own; for a failed driver it ends with the tail of its log."""

    status: RayJobStatus
    message: str
    node_id: str | None


class RayJobs:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._known_at: dict[str, float] = {}  # by the monotonic clock, when Ray was last seen to know it

    async def submit(
        self,
        submission_id: str,
        entrypoint: str,
        *,
        env_vars: dict[str, str],
        label_selector: dict[str, str],
        memory_bytes: int = 0,
    ) -> None:
        """Start `entrypoint` on a node that the selector admits. A `submission_id` that Ray has already is left alone,
        so a submission whose answer was lost can be repeated.

        memory_bytes: what Ray sets aside on the node, and waits for; no limit on the process.
        """
        body = {
            "entrypoint": entrypoint,
            "submission_id": submission_id,
            "runtime_env": {"env_vars": env_vars},
            "entrypoint_label_selector": label_selector,
            "entrypoint_memory": memory_bytes,
        }
        try:
            await request(self._client, "POST", "/api/jobs/", json=body)
        except ClusterRefused:
            # Ray answers 500 with a traceback for a known ID; the ID itself is the surer sign.
            if await self.get(submission_id) is None:
                raise
        then = time.monotonic() - _LATELY_S
        self._known_at = {id: at for id, at in self._known_at.items() if at > then}
        self._known_at[submission_id] = time.monotonic()

    def known_lately(self, submission_id: str) -> bool:
        """Whether Ray has taken it or told of it within the last half minute, and has not denied it since."""
        return time.monotonic() - self._known_at.get(submission_id, -math.inf) < _LATELY_S

    async def get(self, submission_id: str) -> RayJob | None:
        """None if Ray does not know it: it was never received, or the cluster has been started anew."""
        found = await self._find("GET", f"/api/jobs/{submission_id}")
        if found is None:
            self._known_at.pop(submission_id, None)
            return None
        self._known_at[submission_id] = time.monotonic()
        return RayJob(RayJobStatus(found["status"]), found["message"] or "", found["driver_node_id"])

    async def stop(self, submission_id: str) -> None:
        """Ask for the driver to be ended: SIGTERM, and SIGKILL after 3 s. Returns at once; nothing happens if Ray does
        not know it or it has ended. A pending one stays pending until it has a node, and ends there."""
        await self._find("POST", f"/api/jobs/{submission_id}/stop")

    async def log_tail(self, submission_id: str, lines: int = 60) -> list[str]:
        """The last lines of the driver's log, as far as they are in its last `_MAX_TAIL_BYTES`; empty if there is none,
        or if its node is gone."""
        job = await self.get(submission_id)
        if job is None or job.node_id is None:
            return []
        where = {"node_id": job.node_id, "filename": f"job-driver-{submission_id}.log", "lines": lines}
        try:
            end = await end_of(self._client, "/api/v0/logs/file", max_bytes=_MAX_TAIL_BYTES, params=where)
        except ClusterRefused:
            return []
        return end.removesuffix("\n").split("\n")[-lines:] if end else []

    async def _find(self, method: str, path: str) -> dict[str, Any] | None:
        try:
            response = await request(self._client, method, path)
        except ClusterRefused as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise
        found: dict[str, Any] = response.json()
        return found
