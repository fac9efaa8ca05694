"""What is checked before a job is accepted: that its file and models are there, usable and the caller's.

Everything that needs no GPU is checked here rather than in the attempt. What is not on the storage (models and
datasets on the Hugging Face Hub, URLs) waits for the attempt's prepare stage, because the control plane may have no
way out to the internet; so do rows in Parquet where the control plane has no pyarrow, and files on the server that are
larger than any upload.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from service.db.session import Database
from service.errors import DatasetInvalid, ModelNotFound, ModelUnusable, NotFound
from service.files.repository import FileRepository
from service.ids import is_id
from service.jobs.data_file import find_data_file
from service.jobs.model_directory import check_adapted_modules, check_model_directory, find_model_directory
from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from service.settings import Settings
from service.spec import AlignmentJob, DataSpec, Lora, ModelRef, SourceKind, Storage
from service.spec.addresses import refuse_literal
from service.spec.model_config import why_not_served
from service.spec.rows import ReaderMissing, RowNeeds, RowProblem, read_rows
from service.spec.token_ids import other_ids

SHOWN_ROWS = 20


async def check(database: Database, settings: Settings, owner: str, spec: AlignmentJob) -> None:
    """Raises DatasetInvalid, ModelNotFound or ModelUnusable, naming the field or the rows and the way out.

    Reads the whole training file, in a thread and with no transaction open.
    """
    source = await _find_data(database, settings, owner, spec.data)
    model = await _find_model(database, settings, owner, spec.model, "model")
    await _check_policy(settings, spec, model)
    if spec.reference is not None:
        reference = await _find_model(database, settings, owner, spec.reference, "reference")
        if model and reference and (reason := await asyncio.to_thread(other_ids, model[0], reference[0])):
            raise ModelUnusable(
                f"The reference has another tokenizer than the model: {reason}. Name one of the same family.",
                field="reference",
            )
    if source is not None:
        await asyncio.to_thread(check_rows, source[0], source[1], spec)


async def _find_data(database: Database, settings: Settings, owner: str, data: DataSpec) -> tuple[Path, str] | None:
    """The training file and its name for people; None if checking its rows is left to the attempt."""
    match data.source:
        case SourceKind.FILE:
            async with database.reading() as session:
                try:
                    file = await FileRepository(session).get_for_owner(data.train, owner)
                except NotFound as error:
                    raise DatasetInvalid(
                        f"There is no file {data.train} among yours: upload it with POST /v1/files and use its ID.",
                        field="data.train",
                    ) from error
            return Storage(settings.storage_root).files / file.id, file.filename
        case SourceKind.PATH:
            path = await asyncio.to_thread(
                find_data_file, data.train, settings.data_roots, Storage(settings.storage_root).root
            )
            if path.stat().st_size > settings.max_upload_bytes:
                return None  # it would be read for longer than a client waits
            return path, data.train
        case SourceKind.URL if data.train.startswith("https://"):
            host = urlsplit(data.train).hostname or ""
            if refuse_literal(host, settings.allow_private_urls):
                raise DatasetInvalid(
                    f"{host} is no address on the public internet, and none that PLUMBLINE_ALLOW_PRIVATE_URLS lists.",
                    field="data.train",
                )
    return None


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
    database: Database, settings: Settings, owner: str, model: ModelRef, field: str
) -> tuple[Path, dict[str, Any]] | None:
    """The checked model's directory and config.json; None for `hf:`, which the attempt's prepare stage checks."""
    storage = Storage(settings.storage_root)
    directory: Path
    if model.job_id is not None:
        async with database.reading() as session:
            try:
                job = await JobRepository(session).get_for_owner(model.job_id, owner)
            except NotFound as error:
                raise ModelNotFound(
                    f"There is no job {model.job_id} among yours. GET /v1/jobs?state=succeeded lists those that have "
                    "published a model.",
                    field=field,
                ) from error
        if job.state is not JobState.SUCCEEDED:
            wait = "wait until it has succeeded" if not job.state.terminal else "name one that has succeeded"
            raise ModelUnusable(f"The job {job.id} is {job.state} and has published no model: {wait}.", field=field)
        directory = storage.model(job.id)
    elif model.path is not None:
        roots = [storage.root / "models", *settings.model_roots]
        directory = await asyncio.to_thread(find_model_directory, model.path, roots, field)
        if any(is_id("job", part) for part in directory.parts):
            # what jobs published lies under `models` too, and belongs to their owners
            raise ModelNotFound("Name the result of a job by the job, as 'job:ID', not by its path.", field=field)
    else:
        return None
    config = await asyncio.to_thread(
        check_model_directory, directory, field, needs_weights=model.weights == "pretrained"
    )
    return directory, config


async def check_servable(settings: Settings, job_id: str) -> None:
    """Raises ModelUnusable for the published model of a job that was posted with `serve: false` for good reason."""
    directory = Storage(settings.storage_root).model(job_id)
    config = await asyncio.to_thread(check_model_directory, directory, "model", needs_weights=True)
    if reason := why_not_served(config, on_cpu=settings.serving_device == "cpu"):
        raise ModelUnusable(f"The model cannot be served: {reason}.", field="model")


def check_rows(path: Path, filename: str, spec: AlignmentJob) -> None:
    """Raises DatasetInvalid if no row can be used, or more than `data.max_bad_rows` cannot."""
    usable = bad = 0
    fatal: RowProblem | None = None
    shown: list[RowProblem] = []
    rows = read_rows(path, RowNeeds.of(spec))
    try:
        for row in rows:
            if isinstance(row, RowProblem):
                bad += 1
                shown += [row] * (len(shown) < SHOWN_ROWS)
                fatal = row if row.fatal else None
            else:
                usable += 1
    except ReaderMissing:
        return  # the attempt reads the file again, and has what it takes
    if usable and bad <= spec.data.max_bad_rows and not fatal:
        return
    if fatal:
        detail = f"'{filename}' cannot be read past row {fatal.row}: {fatal.message}. {_again(spec.data)}."
    elif not usable and not bad:
        detail = f"The file '{filename}' has no rows: put one JSON object per line, or a row of CSV under a header."
    else:
        first = "; ".join(islice(_by_message(shown), 3))
        detail = f"{bad} of {bad + usable} rows of '{filename}' cannot be used ({first}). {_again(spec.data)}"
        detail += f", or set data.max_bad_rows to {bad} to leave them out." if usable else "."
    raise DatasetInvalid(
        detail,
        field="data.train",
        rows=[asdict(row) for row in shown],
        bad_rows=bad,
        usable_rows=usable,
        read_as=rows.read_as.describe() if rows.read_as else None,
    )


def _again(data: DataSpec) -> str:
    return "Correct and upload the file again" if data.source is SourceKind.FILE else "Correct the file"


def _by_message(shown: list[RowProblem]) -> Iterator[str]:
    numbers: dict[str, list[str]] = {}
    for row in shown:
        numbers.setdefault(row.message, []).append(str(row.row))
    for message, at in numbers.items():
        more = ", ..." if len(at) > 5 else ""
        yield f"row{'s' * (len(at) > 1)} {', '.join(at[:5])}{more}: {message}"
