"""New jobs from the specifications of others."""

from typing import Any

from pydantic import ValidationError

from service.db.session import Database
from service.db.tables import Job
from service.errors import InvalidRequest
from service.jobs.merge_patch import MAX_DEPTH, is_too_deep, merge_patch
from service.jobs.repository import JobRepository
from service.jobs.service import submit
from service.settings import Settings
from service.spec import AlignmentJob
from service.validation import explain


async def clone(
    database: Database,
    settings: Settings,
    project_id: str,
    job_id: str,
    patch: dict[str, Any],
    idempotency_key: str | None = None,
) -> tuple[Job, bool]:
    """Submit the job's specification, as it was accepted, with `patch` (RFC 7396) laid over it.

    Returns and raises what `submit` does; InvalidRequest if the patch does not leave a valid specification.
    """
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
    spec = patched(job.spec, patch)
    return await submit(database, settings, project_id, spec, idempotency_key, cloned_from=job.id)


def patched(spec: dict[str, Any], patch: dict[str, Any]) -> AlignmentJob:
    """Raises InvalidRequest, naming the field."""
    if is_too_deep(patch):
        raise InvalidRequest(f"The patch is nested deeper than {MAX_DEPTH} objects and lists.")
    body = merge_patch(spec, patch)
    try:
        return AlignmentJob.model_validate(body)
    except ValidationError as error:
        raise explain(error.errors(), body) from error
