"""What is checked of a job's models before it is accepted: that they are there, the caller's, and fit to be used so.

A model on the Hugging Face Hub waits for the attempt's prepare stage, which checks the same (`workers.sources`).
"""

import asyncio
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from service.db.session import Database
from service.db.tables import Job
from service.errors import ModelNotFound, ModelUnusable, NotFound
from service.ids import is_id
from service.jobs.model_directory import check_adapted_modules, check_model_directory, find_model_directory
from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from service.queue.memory import ModelShape, model_shape
from service.settings import Settings
from service.spec import AlignmentJob, Lora, ModelRef, Storage
from service.spec.model_config import why_not_served
from service.spec.token_ids import other_ids


@dataclass(frozen=True)
class ModelShapes:
    """How big the job's models are; None for those that only the attempt gets to see. reference: if it is another."""

    policy: ModelShape | None
    reference: ModelShape | None


async def check_models(database: Database, settings: Settings, project_id: str, spec: AlignmentJob) -> ModelShapes:
    """Raises ModelNotFound, ModelUnusable or InvalidRequest, naming the field."""
    model = await _find_model(database, settings, project_id, spec.model, "model")
    reference = None
    await _check_policy(settings, spec, model)
    if spec.reference is not None:
        reference = await _find_model(database, settings, project_id, spec.reference, "reference")
        if model and reference and (reason := await asyncio.to_thread(other_ids, model[0], reference[0])):
            raise ModelUnusable(
                f"The reference has another tokenizer than the model: {reason}. Name one of the same family.",
                field="reference",
            )
    return ModelShapes(await _shape(model), await _shape(reference))


async def _shape(found: tuple[Path, dict[str, Any]] | None) -> ModelShape | None:
    return await asyncio.to_thread(model_shape, *found) if found is not None else None


async def _check_policy(settings: Settings, spec: AlignmentJob, found: tuple[Path, dict[str, Any]] | None) -> None:
    """What is asked of the model to train beyond being there: modules for its adapters, and vLLM's support."""
    if found is None:
        return
    directory, config = found
    method = spec.training.method
    if isinstance(method, Lora) and spec.model.weights == "pretrained" and not method.continue_adapter:
        await asyncio.to_thread(check_adapted_modules, directory, method)
    reason = why_not_served(config, on_cpu=settings.serving_device == "cpu") if spec.serve else None
    if reason:
        raise ModelUnusable(
            f"The result could not be served: {reason}. Set `serve: false` to train it all the same.", field="serve"
        )


async def _find_model(
    database: Database, settings: Settings, project_id: str, model: ModelRef, field: str
) -> tuple[Path, dict[str, Any]] | None:
    """The checked model's directory and config.json; None for `hf:`, which the attempt's prepare stage checks."""
    storage = Storage(settings.storage_root)
    directory: Path
    if model.job_id is not None:
        async with database.reading() as session:
            job = await _publisher(session, project_id, model.job_id, field)
        directory = storage.model(job.id)
    elif model.path is not None:
        roots = [storage.root / "models", *settings.model_roots]
        directory = await asyncio.to_thread(find_model_directory, model.path, roots, field)
        if any(is_id("job", part) for part in directory.parts):
            # what jobs published lies under `models` too, and belongs to their projects
            raise ModelNotFound("Name the result of a job by the job, as 'job:ID', not by its path.", field=field)
    else:
        if not is_allowed_on_hub(model.source.removeprefix("hf:").partition("@")[0], settings):
            raise ModelNotFound(not_allowed_on_hub(settings), field=field)
        return None
    config = await asyncio.to_thread(
        check_model_directory, directory, field, needs_weights=model.weights == "pretrained"
    )
    return directory, config


def is_allowed_on_hub(repository: str, settings: Settings) -> bool:
    """Whether `owner/name` is one that jobs may use; letters are as good as capitals, as they are for the hub."""
    return any(fnmatchcase(repository.lower(), pattern.lower()) for pattern in settings.allowed_hub)


def not_allowed_on_hub(settings: Settings) -> str:
    allowed = " or ".join(settings.allowed_hub) or "nothing"
    return f"Of the Hugging Face Hub only {allowed} may be used (PLUMBLINE_ALLOWED_HUB)."


async def _publisher(session: AsyncSession, project_id: str, job_id: str, field: str, *, lock: bool = False) -> Job:
    """The job, if it has published a model that is still to be used."""
    try:
        job = await JobRepository(session).get_in_project(job_id, project_id, lock=lock)
    except NotFound as error:
        raise ModelNotFound(
            f"There is no job {job_id} among yours. GET /v1/jobs?state=succeeded lists those that have published a "
            "model.",
            field=field,
        ) from error
    if job.state is not JobState.SUCCEEDED:
        wait = "wait until it has succeeded" if not job.state.terminal else "name one that has succeeded"
        raise ModelUnusable(f"The job {job.id} is {job.state} and has published no model: {wait}.", field=field)
    if job.model_deleted_at is not None:
        raise ModelNotFound(f"The model of {job.id} was deleted: name another one.", field=field)
    return job


async def hold_models(session: AsyncSession, project_id: str, spec: AlignmentJob) -> None:
    """Whoever deletes a model that the job names waits for this transaction, and then sees the job.

    Raises ModelNotFound if one has been deleted since the check.
    """
    named = {spec.model.job_id: "model"}
    if spec.reference is not None:
        named.setdefault(spec.reference.job_id, "reference")
    for job_id, field in sorted((job_id, field) for job_id, field in named.items() if job_id is not None):
        await _publisher(session, project_id, job_id, field, lock=True)


async def check_servable(settings: Settings, job_id: str) -> None:
    """Raises ModelUnusable for the published model of a job that was posted with `serve: false` for good reason."""
    directory = Storage(settings.storage_root).model(job_id)
    config = await asyncio.to_thread(check_model_directory, directory, "model", needs_weights=True)
    if reason := why_not_served(config, on_cpu=settings.serving_device == "cpu"):
        raise ModelUnusable(f"The model cannot be served: {reason}.", field="model")
