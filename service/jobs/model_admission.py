"""What is checked of a job's models before it is accepted: that they are there, the caller's, and fit to be used so.

A model on the Hugging Face Hub waits for the attempt's prepare stage, which checks the same (`workers.sources`).
"""

import asyncio
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from service.archive.local import local_model
from service.db.session import Database
from service.db.tables import Job
from service.errors import ModelNotFound, ModelUnusable, NotFound
from service.exports import service as exports
from service.ids import is_id
from service.jobs.model_directory import check_adapted_modules, check_model_directory, find_model_directory
from service.jobs.repository import JobRepository
from service.jobs.states import ExportState, JobState
from service.queue.memory import ModelShape, model_shape
from service.settings import Settings
from service.spec import AlignmentJob, Lora, ModelRef, Storage
from service.spec.model_config import why_not_served, why_too_long
from service.spec.slicing import reads_slices, why_not_sliced
from service.spec.token_ids import other_ids


@dataclass(frozen=True)
class ModelShapes:
    """How big the job's models are; None for those that only the attempt gets to see. reference: if it is another."""

    policy: ModelShape | None
    reference: ModelShape | None


async def check_models(database: Database, settings: Settings, project_id: str, spec: AlignmentJob) -> ModelShapes:
    """Raises ModelNotFound, ModelUnusable or InvalidRequest, naming the field."""
    policy = await _directory_named(database, settings, project_id, spec.model, "model")
    reference = None
    if spec.reference is not None:
        reference = await _directory_named(database, settings, project_id, spec.reference, "reference")
    if policy is None and reference is None:
        return ModelShapes(None, None)
    return await asyncio.to_thread(_look_into, settings, spec, policy, reference)


def _look_into(
    settings: Settings, spec: AlignmentJob, policy: str | Path | None, reference: str | Path | None
) -> ModelShapes:
    """What the models' files tell: all of it in one turn of a thread, which costs more than to open a small file."""
    trained = _checked_model(settings, spec.model, policy, "model") if policy is not None else None
    if trained is not None:
        _check_policy(settings, spec, *trained)
        _check_length(spec, trained[1], "The model")
    other = None
    if spec.reference is not None and reference is not None:
        other = _checked_model(settings, spec.reference, reference, "reference")
        _check_length(spec, other[1], "The reference")
        if trained is not None and (reason := other_ids(trained[0], other[0])):
            raise ModelUnusable(
                f"The reference has another tokenizer than the model: {reason}. Name one of the same family.",
                field="reference",
            )
    return ModelShapes(
        model_shape(*trained) if trained is not None else None, model_shape(*other) if other is not None else None
    )


def _check_policy(settings: Settings, spec: AlignmentJob, directory: Path, config: dict[str, Any]) -> None:
    """What is asked of the model to train beyond being there: modules for its adapters, files to read slices from where
    workers do so, and vLLM's support."""
    method = spec.training.method
    if isinstance(method, Lora) and spec.model.weights == "pretrained" and not method.continue_adapter:
        check_adapted_modules(directory, method)
    if reads_slices(spec) and (reason := why_not_sliced(config)):
        raise ModelUnusable(reason, field="training.parallelism")
    reason = why_not_served(config, on_cpu=settings.serving_device == "cpu") if spec.serve else None
    if reason:
        raise ModelUnusable(
            f"The result could not be served: {reason}. Set `serve: false` to train it all the same.", field="serve"
        )


def _check_length(spec: AlignmentJob, config: dict[str, Any], name: str) -> None:
    if reason := why_too_long(config, spec.data.max_length):
        raise ModelUnusable(f"{name} {reason}", field="data.max_length")


async def find_model(
    database: Database, settings: Settings, project_id: str, model: ModelRef, field: str
) -> tuple[Path, dict[str, Any]] | None:
    """The checked model's directory and config.json; None for `hf:`, which the attempt's prepare stage checks.

    Raises ModelNotFound or ModelUnusable.
    """
    named = await _directory_named(database, settings, project_id, model, field)
    return await asyncio.to_thread(_checked_model, settings, model, named, field) if named is not None else None


async def _directory_named(
    database: Database, settings: Settings, project_id: str, model: ModelRef, field: str
) -> str | Path | None:
    """Of what a job published; a path as it was given, which `_checked_model` checks; None for `hf:`, which the
    attempt's prepare stage checks."""
    if model.job_id is not None:
        async with database.reading() as session:
            job = await _publisher(session, project_id, model, field)
        return await _on_storage(database, settings, job, model.step, field)
    if model.path is not None:
        return model.path
    if model.repository is not None and not is_allowed_on_hub(model.repository, settings):
        raise ModelNotFound(not_allowed_on_hub(settings), field=field)
    return None


def _checked_model(settings: Settings, model: ModelRef, named: str | Path, field: str) -> tuple[Path, dict[str, Any]]:
    """The model's directory and config.json."""
    if isinstance(named, str):
        roots = [Storage(settings.storage_root).root / "models", *settings.model_roots]
        directory = find_model_directory(named, roots, field)
        if any(is_id("job", part) for part in directory.parts):
            # what jobs published lies under `models` too, and belongs to their projects
            raise ModelNotFound("Name the result of a job by the job, as 'job:ID', not by its path.", field=field)
    else:
        directory = named
    return directory, check_model_directory(directory, field, needs_weights=model.weights == "pretrained")


async def _on_storage(database: Database, settings: Settings, job: Job, step: int | None, field: str) -> Path:
    try:
        return await local_model(database, settings, job.id, step)
    except (ModelNotFound, ModelUnusable) as error:
        raise type(error)(error.detail, field=field) from error


def is_allowed_on_hub(repository: str, settings: Settings) -> bool:
    """Whether `owner/name` is one that jobs may use; letters are as good as capitals, as they are for the hub."""
    return any(fnmatchcase(repository.lower(), pattern.lower()) for pattern in settings.allowed_hub)


def not_allowed_on_hub(settings: Settings) -> str:
    allowed = " or ".join(settings.allowed_hub) or "nothing"
    return f"Of the Hugging Face Hub only {allowed} may be used (PLUMBLINE_ALLOWED_HUB)."


async def _publisher(session: AsyncSession, project_id: str, model: ModelRef, field: str, *, lock: bool = False) -> Job:
    """The job that made the model, if that is there and still to be used."""
    job_id = model.job_id or ""
    try:
        job = await JobRepository(session).get_in_project(job_id, project_id, lock=lock)
    except NotFound as error:
        raise ModelNotFound(
            f"There is no job {job_id} among yours. GET /v1/jobs?state=succeeded lists those that have published a "
            "model.",
            field=field,
        ) from error
    if model.step is not None:
        export = await exports.find(session, job.id, model.step)
        if export is None or export.state is not ExportState.READY or export.deleted_at is not None:
            raise ModelNotFound(
                f"The checkpoint after step {model.step} of {job.id} is no model yet: POST "
                f"/v1/jobs/{job.id}/checkpoints/{model.step}/export makes one of it.",
                field=field,
            )
        return job
    if job.state is not JobState.SUCCEEDED:
        wait = "wait until it has succeeded" if not job.state.terminal else "name one that has succeeded"
        raise ModelUnusable(f"The job {job.id} is {job.state} and has published no model: {wait}.", field=field)
    if job.model_deleted_at is not None:
        raise ModelNotFound(f"The model of {job.id} was deleted: name another one.", field=field)
    return job


async def hold_models(session: AsyncSession, project_id: str, *specs: AlignmentJob) -> None:
    """Whoever deletes a model that the jobs name waits for this transaction, and then sees the jobs.

    Raises ModelNotFound if one has been deleted since the check.
    """
    named = {spec.reference.source: (spec.reference, "reference") for spec in specs if spec.reference is not None}
    named |= {spec.model.source: (spec.model, "model") for spec in specs}
    for _, (model, field) in sorted(named.items()):  # in one order, so that no two jobs wait in a ring
        if model.job_id is not None:
            await _publisher(session, project_id, model, field, lock=True)


async def check_servable(database: Database, settings: Settings, job: Job, step: int | None = None) -> None:
    """Raises ModelUnusable for a model of a job that was posted with `serve: false` for good reason."""
    directory = await _on_storage(database, settings, job, step, "model")
    config = await asyncio.to_thread(check_model_directory, directory, "model", needs_weights=True)
    if reason := why_not_served(config, on_cpu=settings.serving_device == "cpu"):
        raise ModelUnusable(f"The model cannot be served: {reason}.", field="model")
