"""What is checked before a job is accepted: that its file and models are there, usable and the caller's.

Everything that needs no GPU is checked here rather than in the attempt. What is not on the storage (models and
datasets on the Hugging Face Hub, URLs) waits for the attempt's prepare stage, because the control plane may have no
way out to the internet; so do rows in Parquet where the control plane has no pyarrow, and files on the server that are
larger than any upload.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy.ext.asyncio import AsyncSession

from service.cluster.http import connect
from service.cluster.nodes import RayNodes
from service.db.session import Database
from service.db.tables import ClusterView
from service.errors import DatasetInvalid
from service.files.contents import local_path
from service.files.repository import FileRepository
from service.jobs.data_file import find_data_file
from service.jobs.model_admission import ModelShapes, check_models, hold_models, is_allowed_on_hub, not_allowed_on_hub
from service.queue import observation
from service.queue.checks import Finding, check_memory, check_pools
from service.queue.size import JobSize
from service.settings import Settings
from service.spec import AlignmentJob, SourceKind, Storage
from service.spec.addresses import refuse_literal
from service.spec.rows import ReaderMissing, RowNeeds, RowProblem, read_rows
from service.spec.sources import hub_source, may_be_fetched, source_kind

SHOWN_ROWS = 20
_LOOK_AGAIN_AFTER_S = 0.5  # so that many refused requests are not as many questions to the cluster

# Uploads whose rows were found good, and for what: their bytes never change, and a sweep posts many jobs on one.
_good: dict[tuple[Path, RowNeeds, int], JobSize] = {}
_MAX_GOOD = 10_000


@dataclass(frozen=True)
class Known:
    """What the database says of the uploads that a job names, and of the cluster. names: by the uploads' IDs; those
    that are not there, or not the project's, are not in it."""

    names: Mapping[str, str]
    cluster: ClusterView | None


def uploads_of(spec: AlignmentJob) -> list[str]:
    """IDs of those that the job names."""
    return [name for _, name in _named(spec) if source_kind(name) is SourceKind.FILE]


async def read_known(session: AsyncSession, project_id: str, spec: AlignmentJob) -> Known:
    uploads = uploads_of(spec)
    names = await FileRepository(session).names(project_id, uploads) if uploads else {}
    return Known(names, await observation.read(session))


async def check(
    database: Database,
    settings: Settings,
    project_id: str,
    spec: AlignmentJob,
    *,
    data: JobSize | None = None,
    known: Known | None = None,
) -> JobSize:
    """How big the job is, as far as that is known here. Raises DatasetInvalid, ModelNotFound, ModelUnusable or, for
    what the cluster has not, PoolMissing, PoolTooSmall or DoesNotFitMemory; naming the field or the rows and the way
    out.

    Reads the whole training and validation files, in a thread and with no transaction open; an upload that was good
    for the same needs is not read again by this process. data: for a job whose rows have just been read for another
    one that needs the same of them, their size. known: if it was read already.
    """
    if known is None:
        async with database.reading() as session:
            known = await read_known(session, project_id, spec)
    models = await check_models(database, settings, project_id, spec)
    if data is None:
        data = await check_data(settings, spec, known)
    for finding in await check_cluster(database, settings, spec, models, known):
        if finding.error is not None:
            raise finding.error
    return replace(data, parameters=models.policy.parameters if models.policy else None)


async def check_data(settings: Settings, spec: AlignmentJob, known: Known) -> JobSize:
    """Rows and bytes of the training file, None for what the attempt alone can know. Raises DatasetInvalid, also for
    the validation file."""
    sizes = {field: await _check_file(settings, spec, known, field, name) for field, name in _named(spec)}
    return sizes["data.train"]


async def _check_file(settings: Settings, spec: AlignmentJob, known: Known, field: str, name: str) -> JobSize:
    source = await _find_data(settings, known.names, field, name)
    if source is None:
        return JobSize()
    checked = source[0], RowNeeds.of(spec), spec.data.max_bad_rows
    if checked in _good:
        return _good[checked]
    try:
        num_bytes = await asyncio.to_thread(lambda: source[0].stat().st_size)
        rows = await asyncio.to_thread(check_rows, source[0], source[1], spec, field)
    except FileNotFoundError as error:
        raise _just_deleted(source[1], field) from error
    size = JobSize(rows=rows, bytes=num_bytes)
    if source_kind(name) is SourceKind.FILE:
        _good[checked] = size
        if len(_good) > _MAX_GOOD:
            del _good[next(iter(_good))]
    return size


async def check_cluster(
    database: Database, settings: Settings, spec: AlignmentJob, models: ModelShapes, known: Known
) -> tuple[Finding, Finding]:
    """Pools, and memory on their GPUs. Nothing is refused for what was seen a while ago: nodes come and go."""
    findings = _findings(settings, spec, models, known.cluster)
    if any(finding.error is not None for finding in findings):
        async with connect(settings) as client:
            await observation.observe(database, RayNodes(client), settings, every_s=_LOOK_AGAIN_AFTER_S)
        async with database.reading() as session:
            findings = _findings(settings, spec, models, await observation.read(session))
    return findings


def _findings(
    settings: Settings, spec: AlignmentJob, models: ModelShapes, view: ClusterView | None
) -> tuple[Finding, Finding]:
    seen = observation.seen(view, settings)
    pools = check_pools(spec, seen, settings)
    return pools, check_memory(spec, models.policy, models.reference, seen, settings)


async def hold(session: AsyncSession, project_id: str, *specs: AlignmentJob) -> None:
    """Whoever deletes files or models of these jobs waits for this transaction, and then sees the jobs. A transaction
    that adds several holds for all of them at once, and the project's quota before: in one order, so that no two wait
    in a ring.

    Raises DatasetInvalid or ModelNotFound for what has been deleted since the check.
    """
    await hold_models(session, project_id, *specs)
    named = {name: field for spec in specs for field, name in _named(spec)}
    for name, field in sorted(named.items()):
        if source_kind(name) is SourceKind.FILE and not await FileRepository(session).hold(name, project_id):
            raise _no_file(name, field)


def _named(spec: AlignmentJob) -> list[tuple[str, str]]:
    """Fields that name rows, and what they say."""
    named = [("data.train", spec.data.train)]
    return named + ([("data.validation", spec.data.validation)] if spec.data.validation else [])


def _no_file(file_id: str, field: str) -> DatasetInvalid:
    return DatasetInvalid(
        f"There is no file {file_id} among yours: upload it with POST /v1/files and use its ID.", field=field
    )


def _just_deleted(filename: str, field: str) -> DatasetInvalid:
    return DatasetInvalid(
        f"The file '{filename}' has just been deleted: upload it again, or correct the path.", field=field
    )


async def find_data(
    database: Database, settings: Settings, project_id: str, field: str, name: str
) -> tuple[Path, str] | None:
    """The file that `field` names and its name for people; None if checking its rows is left to the attempt.

    Raises DatasetInvalid.
    """
    names: Mapping[str, str] = {}
    if source_kind(name) is SourceKind.FILE:
        async with database.reading() as session:
            names = await FileRepository(session).names(project_id, [name])
    return await _find_data(settings, names, field, name)


async def _find_data(settings: Settings, names: Mapping[str, str], field: str, name: str) -> tuple[Path, str] | None:
    """names: of the project's uploads, by ID."""
    match source_kind(name):
        case SourceKind.FILE:
            if name not in names:
                raise _no_file(name, field)
            try:
                return await local_path(settings, name), names[name]
            except FileNotFoundError as error:
                raise _just_deleted(names[name], field) from error
        case SourceKind.PATH:
            path = await asyncio.to_thread(
                find_data_file, name, settings.data_roots, Storage(settings.storage_root).root, field
            )
            if path.stat().st_size > settings.max_upload_bytes:
                return None  # it would be read for longer than a client waits
            return path, name
        case SourceKind.HUB:
            if not is_allowed_on_hub(hub_source(name).repository, settings):
                raise DatasetInvalid(not_allowed_on_hub(settings), field=field)
        case SourceKind.URL if not may_be_fetched(name, settings.allowed_urls):
            raise DatasetInvalid(
                f"Files come from {' or '.join(settings.allowed_urls)} only (PLUMBLINE_ALLOWED_URLS).", field=field
            )
        case SourceKind.URL if name.startswith("https://"):
            host = urlsplit(name).hostname or ""
            if refuse_literal(host, settings.allow_private_urls):
                raise DatasetInvalid(
                    f"{host} is no address on the public internet, and none that PLUMBLINE_ALLOW_PRIVATE_URLS lists.",
                    field=field,
                )
    return None


def check_rows(path: Path, filename: str, spec: AlignmentJob, field: str = "data.train") -> int | None:
    """How many rows can be used; None if only the attempt can read them. Raises DatasetInvalid if none can, or more
    than `data.max_bad_rows` cannot."""
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
        return None  # the attempt reads the file again, and has what it takes
    if usable and bad <= spec.data.max_bad_rows and not fatal:
        return usable
    uploaded = source_kind(dict(_named(spec))[field]) is SourceKind.FILE
    again = "Correct and upload the file again" if uploaded else "Correct the file"
    if fatal:
        detail = f"'{filename}' cannot be read past row {fatal.row}: {fatal.message}. {again}."
    elif not usable and not bad:
        detail = f"The file '{filename}' has no rows: put one JSON object per line, or a row of CSV under a header."
    else:
        first = "; ".join(islice(_by_message(shown), 3))
        detail = f"{bad} of {bad + usable} rows of '{filename}' cannot be used ({first}). {again}"
        detail += f", or set data.max_bad_rows to {bad} to leave them out." if usable else "."
    raise DatasetInvalid(
        detail,
        field=field,
        rows=[asdict(row) for row in shown],
        bad_rows=bad,
        usable_rows=usable,
        read_as=rows.read_as.describe() if rows.read_as else None,
    )


def _by_message(shown: list[RowProblem]) -> Iterator[str]:
    numbers: dict[str, list[str]] = {}
    for row in shown:
        numbers.setdefault(row.message, []).append(str(row.row))
    for message, at in numbers.items():
        more = ", ..." if len(at) > 5 else ""
        yield f"row{'s' * (len(at) > 1)} {', '.join(at[:5])}{more}: {message}"
