"""The corrected training file: flagged rows exchanged or left out, all others as they are."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import select

from service.db.session import Database
from service.db.tables import File
from service.errors import DatasetInvalid, InvalidState, NotFound
from service.files import contents
from service.files import service as files
from service.files.recording import recording
from service.files.repository import FileRepository
from service.ids import is_id
from service.jobs.repository import JobRepository
from service.pairs.actions import FlagAction
from service.pairs.derivation import Derivation
from service.pairs.service import flags_of
from service.projects import usage
from service.settings import Settings
from service.spec import AlignmentJob
from service.spec.rows import ReaderMissing, RowError, RowFormat, RowProblem
from service.spec.rows.files import records
from service.spec.rows.formats import detect
from service.spec.rows.swap import swap_answers

_ROWS_AT_ONCE = 256


async def export(database: Database, settings: Settings, project_id: str, job_id: str) -> tuple[File, bool]:
    """The job's training file as JSON Lines of the same columns, corrected; and whether it was made now.

    While the flags stay the same, so does the file: asking again makes no second one.
    Raises NotFound, InvalidState where there is nothing to correct or the rows were not uploaded, DatasetInvalid, and
    what `files.write` and `files.record` raise.
    """
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        flags = {row: flag.action for row, flag in (await flags_of(session, job.id)).items()}
        if not flags:
            raise InvalidState("No pair of the job is flagged: flag the mislabelled ones first.")
        spec = AlignmentJob.model_validate(job.spec)
        source = await _source(FileRepository(session), spec, project_id)
    path = await _local(settings, source)
    corrected = _Corrected(path, spec.data.format, flags)
    name = f"{source.filename.split('.')[0]}-corrected.jsonl"
    await usage.measure_models(database, settings, project_id)
    file = await files.write(settings, project_id, name, corrected.chunks())
    file.derived_from = Derivation(
        file_id=source.id,
        job_id=job.id,
        swapped=[row for row, action in flags.items() if action is FlagAction.SWAP],
        dropped=[row for row, action in flags.items() if action is FlagAction.DROP],
        unreadable=corrected.unreadable,
    ).model_dump()
    async with recording(database, lambda: contents.remove(settings, file.id)) as session:
        await usage.hold_quota(session, project_id)  # before the job, as whoever makes a job of it does
        await JobRepository(session).get_in_project(job_id, project_id, lock=True)  # one at a time
        same = select(File).where(File.project_id == project_id, File.sha256 == file.sha256)
        all_same = await session.scalars(same.where(File.deleted_at.is_(None)).order_by(File.id))
        earlier = next((one for one in all_same if one.derived_from == file.derived_from), None)
        if earlier is None:
            await files.record(session, file)
    if earlier is not None:
        await contents.remove(settings, file.id)
        return earlier, False
    return file, True


async def _source(repository: FileRepository, spec: AlignmentJob, project_id: str) -> File:
    if not is_id("file", spec.data.train):
        raise InvalidState(
            "The job's rows were not uploaded, so what they are now may not be what it trained on: upload them with "
            "POST /v1/files and run the job on that file, or correct them where they are.",
            field="data.train",
        )
    try:
        return await repository.get_in_project(spec.data.train, project_id)
    except NotFound as error:
        raise InvalidState("The job's training file has been deleted: there is nothing to correct.") from error


async def _local(settings: Settings, source: File) -> Path:
    try:
        return await contents.local_path(settings, source.id)
    except FileNotFoundError as error:
        raise InvalidState("The job's training file has just been deleted.") from error


class _Corrected:
    """unreadable: how many lines were left out because they are no JSON, once all is read."""

    def __init__(self, path: Path, read_as: RowFormat, flags: Mapping[int, FlagAction]) -> None:
        self._path = path
        self._read_as = read_as
        self._flags = flags
        self.unreadable = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """Some rows at a time. Raises DatasetInvalid, InvalidState."""
        lines = self._lines()
        empty = True
        while chunk := await asyncio.to_thread(lambda: b"".join(islice(lines, _ROWS_AT_ONCE))):
            empty = False
            yield chunk
        if empty:
            raise InvalidState("Every row of the file would be dropped: nothing would be left to train on.")

    def _lines(self) -> Iterator[bytes]:
        left = dict(self._flags)
        try:
            for record in records(self._path):
                if isinstance(record, RowProblem):
                    if record.fatal:
                        raise DatasetInvalid(
                            f"The training file cannot be read past row {record.row}: {record.message}."
                        )
                    self.unreadable += 1
                    continue
                action = left.pop(record.number, None)
                if action is not FlagAction.DROP:
                    value = record.value if action is None else self._swapped(record.value, record.number)
                    yield json.dumps(value).encode() + b"\n"
        except ReaderMissing as error:
            raise InvalidState(f"The training file is Parquet. {error}: export on a server that has it.") from error
        if left:
            raise DatasetInvalid(f"The training file has no row {min(left)}, which is flagged: it is damaged.")

    def _swapped(self, value: dict[str, Any], number: int) -> dict[str, Any]:
        read_as = self._read_as if self._read_as is not RowFormat.AUTO else detect(value)
        try:
            return swap_answers(value, read_as or RowFormat.AUTO)
        except RowError as error:
            raise DatasetInvalid(f"Row {number} cannot be exchanged: {error}.", field=error.field) from error
