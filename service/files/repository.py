"""Queries on uploaded files."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.tables import File
from service.errors import InvalidRequest, NotFound
from service.ids import is_id


class FileRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get_for_owner(self, file_id: str, owner: str) -> File:
        """The file if `owner` uploaded it; NotFound otherwise, with no hint which of the two."""
        found = select(File).where(File.id == file_id, File.owner == owner)
        file = (await self._session.scalars(found)).one_or_none() if is_id("file", file_id) else None
        if file is None:
            raise NotFound("There is no such file among yours. GET /v1/files lists them.")
        return file

    async def page(self, owner: str, *, limit: int, cursor: str | None = None) -> tuple[Sequence[File], str | None]:
        """At most `limit` files, newest first, from after `cursor`; and the next cursor, None at the end."""
        query = select(File).where(File.owner == owner)
        if cursor is not None:
            if not is_id("file", cursor):
                raise InvalidRequest(
                    "'cursor' is not one that this list gave out: use `next_cursor` of the last page as it is.",
                    field="cursor",
                )
            query = query.where(File.id < cursor)
        files = (await self._session.scalars(query.order_by(File.id.desc()).limit(limit + 1))).all()
        return files[:limit], files[limit - 1].id if len(files) > limit else None
