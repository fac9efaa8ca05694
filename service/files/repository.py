"""Queries on uploaded files."""

from collections.abc import Sequence

from sqlalchemy import Select, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.tables import File
from service.errors import InvalidRequest, NotFound
from service.ids import is_id

# Made once: each submission asks them.
_files = File.__table__.c
_NAMES = select(_files.id, _files.filename).where(
    _files.id.in_(bindparam("ids", expanding=True)),
    _files.project_id == bindparam("project_id"),
    _files.deleted_at.is_(None),
)
_HELD = (
    select(_files.id)
    .where(_files.id == bindparam("id"), _files.project_id == bindparam("project_id"), _files.deleted_at.is_(None))
    .with_for_update(read=True)
)


class FileRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get_in_project(self, file_id: str, project_id: str, *, lock: bool = False) -> File:
        """The file if it is the project's; NotFound otherwise, with no hint which of the two.

        lock: for one that deletes it; waits for all that `hold` the file.
        """
        found = _there().where(File.id == file_id, File.project_id == project_id)
        if lock:
            found = found.with_for_update()
        file = (await self._session.scalars(found)).one_or_none() if is_id("file", file_id) else None
        if file is None:
            raise NotFound("There is no such file among yours. GET /v1/files lists them.")
        return file

    async def names(self, project_id: str, file_ids: Sequence[str]) -> dict[str, str]:
        """Those of the files that are there and the project's, by ID."""
        found = await self._session.execute(_NAMES, {"project_id": project_id, "ids": list(file_ids)})
        return {row.id: row.filename for row in found}

    async def of_call(self, project_id: str, call_id: str) -> File | None:
        """What a call (service.jobs.calls) has made."""
        made = _there().where(File.project_id == project_id, File.call_id == call_id)
        return (await self._session.scalars(made)).one_or_none()

    async def hold(self, file_id: str, project_id: str) -> bool:
        """Whether the file is there and the project's; whoever deletes it then waits for this transaction."""
        found = await self._session.execute(_HELD, {"project_id": project_id, "id": file_id})
        return found.one_or_none() is not None

    async def page(
        self,
        project_id: str,
        *,
        limit: int,
        cursor: str | None = None,
        sha256: str | None = None,
        oldest_first: bool = False,
    ) -> tuple[Sequence[File], str | None]:
        """At most `limit` files, from after `cursor` in their order; and the next cursor, None at the end.

        sha256: only files of these bytes, in lower-case hexadecimal digits.
        """
        query = _there().where(File.project_id == project_id)
        if sha256 is not None:
            query = query.where(File.sha256 == sha256)
        if cursor is not None:
            if not is_id("file", cursor):
                raise InvalidRequest(
                    "'cursor' is not one that this list gave out: use `next_cursor` of the last page as it is.",
                    field="cursor",
                )
            query = query.where(File.id > cursor if oldest_first else File.id < cursor)
        query = query.order_by(File.id if oldest_first else File.id.desc())
        files = (await self._session.scalars(query.limit(limit + 1))).all()
        return files[:limit], files[limit - 1].id if len(files) > limit else None

    async def all_ids(self) -> set[str]:
        """Of every project's files, those that are being deleted too."""
        return set(await self._session.scalars(select(File.id)))

    async def deleted(self) -> Sequence[File]:
        """Files whose bytes may still be there although no one sees them any more."""
        return (await self._session.scalars(select(File).where(File.deleted_at.is_not(None)))).all()


def _there() -> Select[File]:
    return select(File).where(File.deleted_at.is_(None))
