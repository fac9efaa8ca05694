"""Checks of what lies on this side: the database and its clock, the schema, the storage."""

import os
import secrets
from datetime import UTC, datetime

import httpx
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from service.db.migrate import Schema, schema_of
from service.doctor.findings import Finding, Patient, failed, ok, warning

_SKEW_S = 5.0  # leases and tokens live by the database's clock, so people meet skew in ETAs and logs alone
_LOW_SPACE = 0.1


async def database(patient: Patient) -> Finding:
    try:
        async with patient.database.reading() as session:
            told = await session.scalar(select(func.current_timestamp()))
    except (SQLAlchemyError, OSError) as error:
        return failed(
            f"The database does not answer: {_short(error)}",
            "Check PLUMBLINE_DATABASE_URL, the password in it, and that port 5432 is open from here.",
        )
    skew = abs((_utc(told) - datetime.now(UTC)).total_seconds()) if told is not None else 0.0
    if skew > _SKEW_S:
        return warning(
            f"The database answers; its clock and this machine's are {skew:.0f} s apart.", "Run NTP on both machines."
        )
    return ok(f"{patient.database.engine.dialect.name} answers, and its clock agrees.")


async def migrations(patient: Patient) -> Finding:
    try:
        schema = await schema_of(patient.database)
    except (SQLAlchemyError, OSError) as error:
        return failed(f"The schema cannot be read: {_short(error)}", "Mend the database first.")
    if not schema.serves:
        return failed(f"The database has {schema.value}.", schema.remedy)
    return ok("The schema is this version's." if schema is Schema.OWN else f"The database has {schema.value}.")


async def storage(patient: Patient) -> Finding:
    root = patient.settings.storage_root
    probe = root / f".doctor-{secrets.token_hex(8)}"
    try:
        with probe.open("xb") as file:
            file.write(b"plumbline")
            file.flush()
            os.fsync(file.fileno())
        written = probe.read_bytes() == b"plumbline"
        probe.unlink()
        room = os.statvfs(root)
    except OSError as error:
        return failed(
            f"{root} cannot be written: {error.strerror}.",
            f"Mount the shared volume there, writable for user {os.getuid()} and group {os.getgid()}.",
        )
    if not written:
        return failed(f"{root} gave back other bytes than were written.", "Use another volume.")
    free = room.f_bavail / room.f_blocks if room.f_blocks else 0.0
    if free < _LOW_SPACE:
        return warning(
            f"{root} can be written, but {free:.0%} of it is free.",
            "Grow the volume, or shorten PLUMBLINE_KEEP_CHECKPOINTS_DAYS.",
        )
    return ok(f"{root} can be written; {free:.0%} of it is free.")


async def api(patient: Patient) -> Finding:
    """From here, as the controller asks before it takes a silent attempt for a lost one."""
    url = f"{patient.settings.callback_url}/healthz"
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            response = await client.get(url)
    except httpx.TransportError as error:
        return failed(
            f"{url} does not answer here ({type(error).__name__}): attempts that fall silent would never be stopped.",
            "Start the API, check PLUMBLINE_API_URL, and that its port is open from here.",
        )
    if not response.is_success:
        return failed(f"{url} answers {response.status_code}.", "Check PLUMBLINE_API_URL, and look at the API's log.")
    return ok(f"{patient.settings.callback_url} answers here.")


def _utc(told: datetime | str) -> datetime:
    """SQLite tells its clock as text."""
    at = datetime.fromisoformat(told) if isinstance(told, str) else told
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _short(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0][:300] or type(error).__name__
