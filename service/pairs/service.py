"""Pairs of a job for those who may see it, and the flags that people set on them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.clock import utc_now
from service.db.pair_tables import PairFlag
from service.db.session import Database
from service.db.tables import Job
from service.errors import InvalidRequest, NotFound, PairsMissing
from service.jobs.repository import JobRepository
from service.pairs.actions import FlagAction
from service.pairs.artifact import Damaged, Pair, PairDetail, PairsFile
from service.settings import Settings
from service.spec import AlignmentJob, Storage
from service.spec.pairs import PairsAbout, PairSort
from service.text import storable

T = TypeVar("T")


@dataclass(frozen=True)
class PairPage:
    about: PairsAbout
    pairs: Sequence[Pair]
    flags: dict[int, PairFlag]  # all of the job, by row
    next_cursor: str | None


async def page(
    database: Database,
    settings: Settings,
    project_id: str,
    job_id: str,
    *,
    sort: PairSort,
    descending: bool,
    flagged: bool,
    limit: int,
    cursor: str | None,
) -> PairPage:
    """Raises NotFound, PairsMissing, and InvalidRequest for a cursor of another list."""
    job, flags = await _with_flags(database, project_id, job_id)
    after = _place(cursor)
    rows = flags.keys() if flagged else None

    def read(file: PairsFile) -> PairPage:
        pairs, following = file.page(sort, descending=descending, limit=limit, after=after, rows=rows)
        return PairPage(file.about(), pairs, flags, None if following is None else str(following))

    return await from_file(settings, job, read)


async def margins(
    database: Database, settings: Settings, project_id: str, job_id: str
) -> tuple[PairsAbout, list[tuple[int, float, float]]]:
    """See PairsFile.margins. Raises NotFound, PairsMissing."""
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
    return await from_file(settings, job, lambda file: (file.about(), file.margins()))


async def detail(
    database: Database, settings: Settings, project_id: str, job_id: str, row: int
) -> tuple[PairDetail, PairFlag | None]:
    """Raises NotFound, PairsMissing."""
    job, flags = await _with_flags(database, project_id, job_id)
    found = await from_file(settings, job, lambda file: file.detail(row))
    if found is None:
        raise _no_such_pair(row)
    return found, flags.get(row)


async def set_flag(
    database: Database,
    settings: Settings,
    project_id: str,
    job_id: str,
    row: int,
    action: FlagAction,
    note: str,
    *,
    key_id: str,
    user_id: str | None,
) -> PairFlag:
    """The flag of the pair from now on. Raises NotFound, PairsMissing, and InvalidRequest for a ranking to be swapped.

    Setting the same again is harmless, and keeps who said it first.
    """
    if storable(note) != note:
        raise InvalidRequest("'note' holds a character that is not text, such as NUL: remove it.", field="note")
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
    num_answers = await from_file(settings, job, lambda file: file.num_answers(row))
    if num_answers is None:
        raise _no_such_pair(row)
    if action is FlagAction.SWAP and num_answers > 2:
        raise InvalidRequest(
            f"Row {row} is a ranking of {num_answers} answers, of which best and worst are shown: drop it, or correct "
            "the file by hand.",
            field="action",
        )
    async with database.transaction() as session:
        await JobRepository(session).get_in_project(job_id, project_id, lock=True)  # one at a time
        flag = await session.get(PairFlag, (job_id, row))
        if flag is not None and (flag.action, flag.note) == (action, note):
            return flag
        if flag is None:
            flag = PairFlag(job_id=job_id, row=row)
            session.add(flag)
        flag.action, flag.note, flag.created_at = action, note, utc_now()
        flag.key_id, flag.user_id = key_id, user_id
        await audit.record(session, f"{job_id}/{row}")
        await session.flush()
        return flag


async def remove_flag(database: Database, project_id: str, job_id: str, row: int) -> None:
    """Idempotent. Raises NotFound if there is no such job."""
    async with database.transaction() as session:
        await JobRepository(session).get_in_project(job_id, project_id, lock=True)
        flag = await session.get(PairFlag, (job_id, row))
        if flag is not None:
            await session.delete(flag)
            await audit.record(session, f"{job_id}/{row}")


async def flags_of(session: AsyncSession, job_id: str) -> dict[int, PairFlag]:
    """By row, in the order of rows; at most as many as pairs are measured of a job."""
    flags = select(PairFlag).where(PairFlag.job_id == job_id).order_by(PairFlag.row)
    return {flag.row: flag for flag in await session.scalars(flags)}


async def from_file(settings: Settings, job: Job, read: Callable[[PairsFile], T]) -> T:
    """What `read` makes of the job's file. Raises PairsMissing, saying why there is none."""
    file = PairsFile(Storage(settings.storage_root).pairs(job.id))
    try:
        return await asyncio.to_thread(read, file)
    except FileNotFoundError as error:
        raise PairsMissing(_why_missing(job)) from error
    except Damaged as error:
        raise PairsMissing(
            f"The file of the job's pairs is damaged ({error}): run the job again to measure them."
        ) from error


async def _with_flags(database: Database, project_id: str, job_id: str) -> tuple[Job, dict[int, PairFlag]]:
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        return job, await flags_of(session, job.id)


def _place(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise InvalidRequest(
            "'cursor' is not one that this list gave out: use `next_cursor` of the last page as it is.", field="cursor"
        )
    return int(cursor)


def _no_such_pair(row: int) -> NotFound:
    return NotFound(
        f"No pair of row {row} was measured: the row was held out, left out of the sample, or is not in the file. "
        "GET /v1/jobs/JOB/pairs lists those that were."
    )


def _why_missing(job: Job) -> str:
    spec = AlignmentJob.model_validate(job.spec)
    if not spec.has_pairs:
        return f"The job's losses learn from {spec.data_shape}, not from pairs: there are none to show."
    if spec.evaluation.pairs == 0:
        return "The job asked for no measure of its pairs: clone it without `evaluation.pairs: 0`."
    if job.run_removed_at is not None:
        return "The job's working files were removed by retention, and the measure of its pairs with them."
    if not job.state.terminal:
        return f"The job is {job.state}: its pairs are measured when training ends (event `pairs.measured`)."
    return (
        "The job left no measure of its pairs: it ended before, its disk took none (event `pairs.failed`), or it ran "
        "under an earlier version."
    )
