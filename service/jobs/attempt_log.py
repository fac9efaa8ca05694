"""What an attempt's processes have written, as Ray keeps it: the driver's own lines, and its actors' with a prefix."""

import re
from dataclasses import dataclass

from service.cluster.http import ClusterUnavailable, connect
from service.cluster.jobs import RayJobs
from service.db.session import Database
from service.db.tables import Attempt
from service.errors import NotFound, Unavailable
from service.jobs.repository import AttemptRepository, JobRepository
from service.jobs.tokens import attempt_token
from service.settings import Settings
from service.spec.secrets import HIDDEN, redact
from service.telemetry.logs import held_secrets

MAX_LINES = 5000
_MAX_LINE = 4000  # characters
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class AttemptLog:
    """attempt: its number; None before the first one. more: whether there are earlier lines. live: whether lines may
    still come."""

    attempt: int | None
    lines: list[str]
    more: bool
    live: bool


async def read_log(
    database: Database, settings: Settings, project_id: str, job_id: str, *, attempt: int | None, tail: int
) -> AttemptLog:
    """The last `tail` lines of an attempt, by default the newest one, with secrets hidden; none once the cluster does
    not have them any more. Raises NotFound, or Unavailable while the cluster does not answer."""
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        attempts = AttemptRepository(session)
        found = await (attempts.current(job) if attempt is None else attempts.numbered(job, attempt))
    if found is None and attempt is not None:
        raise NotFound(f"The job has no attempt {attempt}: it had {job.num_attempts}.")
    if found is None:
        return AttemptLog(None, [], more=False, live=not job.state.terminal)
    try:
        async with connect(settings) as client:
            lines = await RayJobs(client).log_tail(found.id, tail + 1)
    except ClusterUnavailable as error:
        raise Unavailable(f"The log is on the cluster, which does not answer: {error}") from error
    shown = _shown("\n".join(lines[-tail:]), settings, found).split("\n") if lines else []
    return AttemptLog(
        found.number,
        [_COLOURS.sub("", line).rpartition("\r")[2][:_MAX_LINE] for line in shown],
        more=len(lines) > tail,
        live=not found.state.terminal,
    )


def _shown(text: str, settings: Settings, attempt: Attempt) -> str:
    """Anything may be in a log, as when a program prints its environment."""
    for secret in (attempt_token(settings, attempt.id), *held_secrets(settings)):
        text = text.replace(secret, HIDDEN)
    return redact(text)
