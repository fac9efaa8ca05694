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
from typing import Literal
from urllib.parse import urlsplit

from sqlalchemy.ext.asyncio import AsyncSession

from service.db.session import Database
from service.db.tables import File
from service.errors import DatasetInvalid, NotFound
from service.files.repository import FileRepository
from service.jobs.data_file import find_data_file
from service.jobs.model_admission import check_models, hold_models, is_allowed_on_hub, not_allowed_on_hub
from service.settings import Settings
from service.spec import AlignmentJob, DataSpec, SourceKind, Storage
from service.spec.addresses import refuse_literal
from service.spec.rows import ReaderMissing, RowNeeds, RowProblem, read_rows
from service.spec.sources import hub_source, may_be_fetched

SHOWN_ROWS = 20

# Uploads whose rows were found good, and for what: their bytes never change, and a sweep posts many jobs on one.
_good: dict[tuple[Path, RowNeeds, int], None] = {}
_MAX_GOOD = 10_000


async def check(database: Database, settings: Settings, project_id: str, spec: AlignmentJob) -> None:
    """Raises DatasetInvalid, ModelNotFound or ModelUnusable, naming the field or the rows and the way out.

    Reads the whole training file, in a thread and with no transaction open; an upload that was good for the same
    needs is not read again by this process.
    """
    source = await _find_data(database, settings, project_id, spec.data)
    await check_models(database, settings, project_id, spec)
    if source is None:
        return
    checked = source[0], RowNeeds.of(spec), spec.data.max_bad_rows
    if checked in _good:
        return
    try:
        await asyncio.to_thread(check_rows, source[0], source[1], spec)
    except FileNotFoundError as error:
        raise DatasetInvalid(
            f"The file '{source[1]}' has just been deleted: {_again(spec.data).lower()}.", field="data.train"
        ) from error
    if spec.data.source is SourceKind.FILE:
        _good[checked] = None
        if len(_good) > _MAX_GOOD:
            del _good[next(iter(_good))]


async def hold(session: AsyncSession, project_id: str, spec: AlignmentJob) -> None:
    """Whoever deletes the job's file or models waits for this transaction, and then sees the job.

    Raises DatasetInvalid or ModelNotFound for what has been deleted since the check.
    """
    await hold_models(session, project_id, spec)
    if spec.data.source is SourceKind.FILE:
        await _find_file(session, project_id, spec.data.train, lock="share")


async def _find_file(
    session: AsyncSession, project_id: str, file_id: str, lock: Literal["share"] | None = None
) -> File:
    try:
        return await FileRepository(session).get_in_project(file_id, project_id, lock=lock)
    except NotFound as error:
        raise DatasetInvalid(
            f"There is no file {file_id} among yours: upload it with POST /v1/files and use its ID.",
            field="data.train",
        ) from error


async def _find_data(
    database: Database, settings: Settings, project_id: str, data: DataSpec
) -> tuple[Path, str] | None:
    """The training file and its name for people; None if checking its rows is left to the attempt."""
    match data.source:
        case SourceKind.FILE:
            async with database.reading() as session:
                file = await _find_file(session, project_id, data.train)
            return Storage(settings.storage_root).files / file.id, file.filename
        case SourceKind.PATH:
            path = await asyncio.to_thread(
                find_data_file, data.train, settings.data_roots, Storage(settings.storage_root).root
            )
            if path.stat().st_size > settings.max_upload_bytes:
                return None  # it would be read for longer than a client waits
            return path, data.train
        case SourceKind.HUB:
            if not is_allowed_on_hub(hub_source(data.train).repository, settings):
                raise DatasetInvalid(not_allowed_on_hub(settings), field="data.train")
        case SourceKind.URL if not may_be_fetched(data.train, settings.allowed_urls):
            raise DatasetInvalid(
                f"Training files come from {' or '.join(settings.allowed_urls)} only (PLUMBLINE_ALLOWED_URLS).",
                field="data.train",
            )
        case SourceKind.URL if data.train.startswith("https://"):
            host = urlsplit(data.train).hostname or ""
            if refuse_literal(host, settings.allow_private_urls):
                raise DatasetInvalid(
                    f"{host} is no address on the public internet, and none that PLUMBLINE_ALLOW_PRIVATE_URLS lists.",
                    field="data.train",
                )
    return None


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
