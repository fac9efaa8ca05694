"""Checks of the Ray cluster: that it answers with our token, has the pools, and sees the same storage and API."""

import asyncio
import json
import secrets
import time
from typing import Any

import httpx

from service.clock import utc_now
from service.cluster.http import ClusterError, ClusterRefused, request
from service.cluster.jobs import RayJob, RayJobs
from service.cluster.nodes import RayNodes
from service.doctor.buckets import used_buckets
from service.doctor.findings import Finding, Patient, failed, ok, warning
from service.queue.capacity import COMPUTE_POOLS, Capacity
from service.settings import Settings
from service.spec.pools import Pool

_PROBE_TIMEOUT_S = 180  # a pod of the control group may have to be added first
_POLL_S = 0.5
_SKEW_S = 5.0


async def ray(patient: Patient) -> Finding:
    try:
        version = (await request(patient.client, "GET", "/api/version")).json()["ray_version"]
    except ClusterRefused as error:
        fix = (
            "Give control plane and cluster the same token (Secret plumbline-ray-auth, key auth_token)."
            if error.status in {401, 403}
            else "Look at the log of Ray's head."
        )
        return failed(str(error), fix)
    except ClusterError as error:
        return failed(str(error), "Check PLUMBLINE_RAY_URL, and that the head runs and lets us in at 8265.")
    except (ValueError, KeyError):
        return failed(
            f"{patient.settings.ray_url} answers, but not as Ray does.", "Check PLUMBLINE_RAY_URL: it is the dashboard."
        )
    return ok(f"Ray {version} answers and takes our token.")


async def pools(patient: Patient) -> Finding:
    try:
        capacity = Capacity(tuple(await RayNodes(patient.client).in_pools()), utc_now())
    except ClusterError as error:
        return failed(str(error), "Mend the connection to Ray first.")
    return look_at_pools(capacity, patient.settings)


def look_at_pools(capacity: Capacity, settings: Settings) -> Finding:
    """Whether each pool has nodes, and those GPUs that are to have some."""
    missing = [pool.value for pool in Pool if not capacity.nodes_of(pool)]
    found = ", ".join(
        f"{label} ({capacity.of_label(label).gpus:g} GPUs, {capacity.of_label(label).cpus:g} CPUs)"
        for label in sorted(capacity.labels)
    )
    told = f"Nodes by label: {found or 'none'}."
    if missing and settings.autoscaling:
        return ok(f"{told} {', '.join(missing)}: none now, added on demand.")
    if missing:
        return failed(
            f"{told} No node is labelled {' or '.join(f'pool={name}' for name in missing)}, or pool=shared.",
            "Label the worker groups (`labels: {pool: ...}`), or `ray start --labels pool=...`.",
        )
    return _look_at_gpus(told, capacity, settings.serving_device)


def _look_at_gpus(told: str, capacity: Capacity, serving_device: str | None) -> Finding:
    without = [pool.value for pool in (*COMPUTE_POOLS, Pool.SERVING) if not capacity.of_pool(pool).gpus]
    if not without or serving_device == "cpu":
        return ok(told)
    none = f"{told} Without a GPU: {', '.join(without)}."
    if serving_device == "gpu" and Pool.SERVING in without:
        return failed(
            f"{none} Engines ask for one (PLUMBLINE_SERVING_DEVICE=gpu), and would wait for ever.",
            "Ask for GPUs in the worker group of pool=serving.",
        )
    return warning(none, "Ask for GPUs in their worker groups, or set PLUMBLINE_SERVING_DEVICE=cpu if there are none.")


async def serve(patient: Patient) -> Finding:
    try:
        found = (await request(patient.client, "GET", "/api/serve/applications/", timeout=60)).json()
    except ClusterError as error:
        return failed(str(error), "Mend the connection to Ray first.")
    if not found["applications"]:
        return ok("Serve's REST API answers; it holds no model yet.")
    url = f"{patient.settings.serve_url}/-/healthz"
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            response = await client.get(url)
    except httpx.TransportError as error:
        return failed(
            f"Serve holds models, but {url} does not answer ({type(error).__name__}).",
            "Check PLUMBLINE_SERVE_URL, PLUMBLINE_SERVE_HOST, and that port 8000 of the head is open from here.",
        )
    if not response.is_success:
        return failed(f"Serve's proxy answers {response.status_code}: {response.text[:200]}", "Look at Serve's log.")
    return ok(f"Serve answers and holds {len(found['applications'])} applications.")


async def attempts(patient: Patient) -> Finding:
    """Run a small job where drivers run: it must find what we write to the storage, write there, and reach the API.

    It tries the object stores too. Attempts and engines read copies on the storage, so one that cannot be used from
    there is a warning: what fails without is training files named as s3://.
    """
    token = secrets.token_hex(8)
    root = patient.settings.storage_root
    ours, theirs = root / f".doctor-{token}-asked", root / f".doctor-{token}-answered"
    try:
        ours.write_text(token)
    except OSError as error:
        return failed(f"The storage cannot be written here: {error.strerror}.", "Mend the storage first.")
    try:
        return await _probe(patient, token, RayJobs(patient.client))
    except ClusterError as error:
        return failed(str(error), "Mend the connection to Ray first.")
    finally:
        ours.unlink(missing_ok=True)
        theirs.unlink(missing_ok=True)


async def _probe(patient: Patient, token: str, jobs: RayJobs) -> Finding:
    id, root = f"doctor-{token}", patient.settings.storage_root
    begun = time.monotonic()
    await jobs.submit(
        id,
        f"python -m workers.probe {token}",
        env_vars={
            "PLUMBLINE_STORAGE": str(root),
            "PLUMBLINE_API_URL": patient.settings.callback_url,
            "PLUMBLINE_DOCTOR_BUCKETS": json.dumps(sorted(set(used_buckets(patient.settings).values()))),
        },
        label_selector=Pool.CONTROL.selector,
    )
    job = await _ended(jobs, id)
    if job is None or not job.status.terminal:
        await jobs.stop(id)
        return failed(
            f"A driver was not started within {_PROBE_TIMEOUT_S} s.",
            "A node labelled pool=control or pool=shared must have a free CPU.",
        )
    try:
        told: dict[str, Any] = json.loads((root / f".doctor-{token}-answered").read_text())
    except FileNotFoundError:
        log = " | ".join((await jobs.log_tail(id, 5)) or [job.message])
        return failed(
            f"A driver ran, but what it wrote to {root} is not there: {log[-500:]}",
            "Mount the same volume at the same path in the pods of Ray and here, writable for the user of both.",
        )
    if told["api"] is not None:
        return failed(
            f"A driver on the cluster cannot reach {patient.settings.callback_url}: {told['api']}",
            "Set PLUMBLINE_API_URL to the API as the cluster sees it, and let the cluster in at its port.",
        )
    if (skew := abs(told["skew_s"])) > _SKEW_S:
        return warning(f"The clocks of the cluster and of the API are {skew:.0f} s apart.", "Run NTP on the nodes.")
    well = f"A driver started in {time.monotonic() - begun:.0f} s, shares the storage, and reaches the API"
    if unusable := {url: trouble for url, trouble in told["buckets"].items() if trouble is not None}:
        return warning(
            f"{well}, but cannot use {'; '.join(f'{url} ({trouble})' for url, trouble in unusable.items())}.",
            "Only training files named as s3:// need that. If jobs are to have such, give the pods of the pool control "
            "the same AWS_* environment as API and controller, and let them out to the store.",
        )
    written = f", and can write {' and '.join(told['buckets'])}" if told["buckets"] else ""
    return ok(f"{well}{written}.")


async def _ended(jobs: RayJobs, id: str) -> RayJob | None:
    """As it was seen last; None if Ray does not know it."""
    deadline = time.monotonic() + _PROBE_TIMEOUT_S
    while True:
        job = await jobs.get(id)
        if job is None or job.status.terminal or time.monotonic() > deadline:
            return job
        await asyncio.sleep(_POLL_S)
