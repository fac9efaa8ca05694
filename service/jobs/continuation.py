"""Jobs that go on with another job's adapter: what they take over from it."""

import asyncio
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.archive.local import bring_base, local_model
from service.db.session import Database
from service.db.tables import Job
from service.errors import InvalidRequest, ModelUnusable, NotFound
from service.jobs.repository import JobRepository
from service.settings import Settings
from service.spec import AlignmentJob, Lora

_FIELD = "training.method.continue_adapter"
_TAKEN_OVER = ("rank", "alpha", "target_modules", "rslora", "dora", "modules_to_save")


async def with_adapter_options(
    database: Database, settings: Settings, project_id: str, spec: AlignmentJob
) -> AlignmentJob:
    """The job with the options of the adapter it goes on with written into it; any other job as it is.

    Call it when `admission.check` has let the job through. Raises ModelUnusable if the job it names published no
    adapter to go on with, InvalidRequest if an option was given that the adapter does not have.
    """
    method = spec.training.method
    if not isinstance(method, Lora) or not method.continue_adapter:
        return spec
    assert spec.model.job_id is not None
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(spec.model.job_id, project_id)
    before = _readable(job)
    if not isinstance(before.training.method, Lora):
        raise ModelUnusable(
            f"The job {job.id} trained every weight, so there is no adapter to go on with: leave continue_adapter out.",
            field=_FIELD,
        )
    await _check_base(database, settings, project_id, job, spec.model.step, before)
    taken = {name: getattr(before.training.method, name) for name in _TAKEN_OVER}
    for name, value in taken.items():
        given = getattr(method, name)
        if name in method.model_fields_set and _comparable(given) != _comparable(value):
            raise InvalidRequest(
                f"training.method.{name} is {given}, but the adapter of {job.id} has {value}, which stays as it is: "
                "give the same, or leave the option out.",
                field=f"training.method.{name}",
            )
    training = spec.training.model_copy(update={"method": method.model_copy(update=taken)})
    return spec.model_copy(update={"training": training})


async def _check_base(
    database: Database, settings: Settings, project_id: str, job: Job, step: int | None, spec: AlignmentJob
) -> None:
    """The weights under an adapter are those that the first job of its chain started from."""
    model = await local_model(database, settings, job.id, step)
    await bring_base(database, settings, model)
    adapter = model / "adapter"
    if not await asyncio.to_thread(_is_whole, adapter):
        raise ModelUnusable(
            f"The adapter of {job.id}, or the model that it was trained on, is not in the storage any more.",
            field=_FIELD,
        )
    first = spec
    while first.continues_adapter:
        assert first.model.job_id is not None
        try:
            async with database.reading() as session:
                first = _readable(await JobRepository(session).get_in_project(first.model.job_id, project_id))
        except NotFound as error:
            raise ModelUnusable(
                f"The job {first.model.job_id}, with which the adapter of {job.id} began, is not among yours any more.",
                field=_FIELD,
            ) from error
    if first.model.weights == "random":
        raise ModelUnusable(
            f"The adapter of {job.id} began on random weights, which were not kept: leave continue_adapter out to go "
            "on from the merged model.",
            field=_FIELD,
        )


def _readable(job: Job) -> AlignmentJob:
    try:
        return AlignmentJob.model_validate(job.spec)
    except ValidationError as error:
        raise ModelUnusable(
            f"The job {job.id} was accepted by another version, and this one does not take its options: leave "
            "continue_adapter out.",
            field=_FIELD,
        ) from error


def _is_whole(adapter: Path) -> bool:
    try:
        config = json.loads((adapter / "adapter_config.json").read_bytes())
        return (Path(config["base_model_name_or_path"]) / "config.json").is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _comparable(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value
