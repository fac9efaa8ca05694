"""All checks, in the order in which one fault explains the next."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

from service.cluster.http import connect
from service.db.session import Database
from service.doctor import cluster, control_plane
from service.doctor.buckets import buckets
from service.doctor.findings import Finding, Patient, Verdict
from service.settings import Settings

CHECKS: dict[str, Callable[[Patient], Awaitable[Finding]]] = {
    "database": control_plane.database,
    "migrations": control_plane.migrations,
    "storage": control_plane.storage,
    "buckets": buckets,
    "api": control_plane.api,
    "ray": cluster.ray,
    "pools": cluster.pools,
    "serve": cluster.serve,
    "attempts": cluster.attempts,
}
_AGAIN_AFTER_S = 2.0


async def examine(
    settings: Settings, names: Collection[str] = tuple(CHECKS), wait_s: float = 0
) -> AsyncIterator[tuple[str, Finding]]:
    """Each check's name and what it found, as soon as it is known. A check that fails is repeated until `wait_s` from
    the beginning."""
    deadline = time.monotonic() + wait_s
    database, client = Database(settings.sqlalchemy_url), connect(settings)
    try:
        for name, check in CHECKS.items():
            if name not in names:
                continue
            yield name, await _found(check, Patient(settings, database, client), deadline)
    finally:
        await client.aclose()
        await database.close()


async def _found(check: Callable[[Patient], Awaitable[Finding]], patient: Patient, deadline: float) -> Finding:
    while True:
        finding = await check(patient)
        if finding.verdict is not Verdict.FAILED or time.monotonic() > deadline:
            return finding
        await asyncio.sleep(_AGAIN_AFTER_S)
