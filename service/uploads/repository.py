"""Queries on uploads and their parts."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.tables import Upload, UploadPart
from service.errors import NotFound
from service.ids import is_id


class UploadStatus(StrEnum):
    PENDING = "pending"  # takes parts
    COMPLETED = "completed"  # is a file
    CANCELLED = "cancelled"  # by its client
    EXPIRED = "expired"  # its time was over before it was completed


def status_of(upload: Upload, now: datetime) -> UploadStatus:
    if upload.file_id is not None:
        return UploadStatus.COMPLETED
    if upload.cancelled_at is not None:
        return UploadStatus.CANCELLED
    return UploadStatus.PENDING if now < upload.expires_at else UploadStatus.EXPIRED


class UploadRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get_in_project(self, upload_id: str, project_id: str, *, lock: bool = False) -> Upload:
        """The upload if it is the project's; NotFound otherwise, with no hint which of the two."""
        found = select(Upload).where(Upload.id == upload_id, Upload.project_id == project_id)
        if lock:
            found = found.with_for_update().execution_options(populate_existing=True)
        upload = (await self._session.scalars(found)).one_or_none() if is_id("upload", upload_id) else None
        if upload is None:
            raise NotFound("There is no such upload among yours. POST /v1/uploads begins one.")
        return upload

    async def of_call(self, project_id: str, call_id: str) -> Upload | None:
        """What a call (service.jobs.calls) has made."""
        made = select(Upload).where(Upload.project_id == project_id, Upload.call_id == call_id)
        return (await self._session.scalars(made)).one_or_none()

    async def num_pending(self, project_id: str, now: datetime) -> int:
        counted = select(func.count()).select_from(Upload).where(Upload.project_id == project_id, is_pending(now))
        return (await self._session.scalars(counted)).one()

    async def pending(self, now: datetime) -> set[str]:
        """IDs of every project's uploads that take parts."""
        return set(await self._session.scalars(select(Upload.id).where(is_pending(now))))

    async def parts(self, upload_id: str) -> Sequence[UploadPart]:
        return (await self._session.scalars(select(UploadPart).where(UploadPart.upload_id == upload_id))).all()

    async def part_with(self, upload_id: str, sha256: str) -> UploadPart | None:
        found = select(UploadPart).where(UploadPart.upload_id == upload_id, UploadPart.sha256 == sha256)
        return (await self._session.scalars(found)).one_or_none()

    async def size_of_parts(self, upload_id: str) -> tuple[int, int]:
        """How many parts there are, and how many bytes in them."""
        sums = select(func.count(), func.coalesce(func.sum(UploadPart.bytes), 0))
        number, size = (await self._session.execute(sums.where(UploadPart.upload_id == upload_id))).one()
        return int(number), int(size)

    async def forget(self, before: datetime) -> int:
        """Delete the rows of uploads whose time was over `before` then; returns how many that were."""
        old = (await self._session.scalars(select(Upload.id).where(Upload.expires_at < before))).all()
        if old:
            await self._session.execute(delete(UploadPart).where(UploadPart.upload_id.in_(old)))
            await self._session.execute(delete(Upload).where(Upload.id.in_(old)))
        return len(old)


def is_pending(now: datetime) -> ColumnElement[bool]:
    return Upload.file_id.is_(None) & Upload.cancelled_at.is_(None) & (Upload.expires_at > now)
