"""Queries on uploaded files."""

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.tables import File
from service.errors import InvalidRequest, NotFound
from service.ids import is_id


class FileRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get_in_project(
        self, file_id: str, project_id: str, *, lock: Literal["share", "delete"] | None = None
    ) -> File:
        """The file if it is the project's; NotFound otherwise, with no hint which of the two.

        lock: `delete` waits for all that hold the file, and `share` for one that deletes it.
        """
        found = _there().where(File.id == file_id, File.project_id == project_id)
        if lock is not None:
            found = found.with_for_update(read=lock == "share")
        file = (await self._session.scalars(found)).one_or_none() if is_id("file", file_id) else None
        if file is None:
            raise NotFound("There is no such file among yours. GET /v1/files lists them.")
        return file

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
