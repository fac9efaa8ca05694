"""Check of the object stores of uploads and published models, from the side of API and controller, which use them. The
check `attempts` tries them from the cluster, whose attempts and engines read copies on the storage."""

import secrets
from datetime import UTC, datetime

from service.doctor.findings import Finding, Patient, failed, ok
from service.errors import Unavailable
from service.files.bucket import bucket
from service.settings import Settings

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def used_buckets(settings: Settings) -> dict[str, str]:
    """The address that each setting names."""
    named = {"PLUMBLINE_FILES_URL": settings.files_url, "PLUMBLINE_MODELS_URL": settings.models_url}
    return {setting: url for setting, url in named.items() if url is not None}


async def buckets(patient: Patient) -> Finding:
    """Do under each address what uploads, models and their removal need: put, get, list, delete, and list what has been
    begun."""
    used = used_buckets(patient.settings)
    for setting, url in used.items():
        try:
            trouble = await _trouble(url)
        except FileNotFoundError:
            return failed(f"{url}: there is no such bucket.", f"Make the bucket, or mend {setting}.")
        except (Unavailable, ValueError) as error:
            fix = "Check AWS_ENDPOINT_URL, region and credentials of API and controller, and that they may put, get, "
            fix += "list and delete objects there, and list and abort multipart uploads."
            return failed(f"{url} ({setting}): {error}", fix)
        if trouble is not None:
            return failed(f"{url} ({setting}) {trouble}.", "Use another object store.")
    if not used:
        return ok("None is set: uploads and models are in the storage alone.")
    return ok(f"{' and '.join(sorted(set(used.values())))} can be written, read, listed and cleared.")


async def _trouble(url: str) -> str | None:
    """Raises FileNotFoundError, ValueError, Unavailable."""
    store, token = bucket(url), secrets.token_hex(8)
    name = f".doctor/{token}"
    await store.put_bytes(token.encode(), name)
    try:
        if await store.read(name) != token.encode():
            return "gave back other bytes than were written"
        if name not in await store.names(".doctor/"):
            return "does not list what it holds"
    finally:
        await store.delete(name)
    await store.abort_stale(_LONG_AGO)
    return None
