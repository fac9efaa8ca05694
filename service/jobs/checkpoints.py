"""The checkpoints that a job has on the storage."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from service.db.serving_tables import CheckpointExport
from service.db.tables import Metric
from service.jobs.log import LogRepository
from service.jobs.repository import JobRepository
from service.settings import Settings
from service.spec import Storage


@dataclass(frozen=True)
class Checkpoint:
    step: int
    saved_at: datetime
    bytes: int
    metrics: dict[str, dict[str, float | None]]  # by split, of the checkpoint's step


async def all_of(session: AsyncSession, settings: Settings, project_id: str, job_id: str) -> list[Checkpoint]:
    """Those that can be gone on from, oldest first; none once the job has succeeded. Raises NotFound."""
    job = await JobRepository(session).get_in_project(job_id, project_id)
    found = await asyncio.to_thread(_on_storage, Storage(settings.storage_root).checkpoints(job.id))
    metrics = await LogRepository(session).at_steps(job.id, [step for step, _, _ in found])
    return [Checkpoint(step, saved_at, size, _by_split(metrics, step)) for step, saved_at, size in found]


async def exported(session: AsyncSession, job_id: str, exports: Sequence[CheckpointExport]) -> list[Checkpoint]:
    """Those that are there as models, or to become models, alone. bytes: of the model, 0 until it is there."""
    metrics = await LogRepository(session).at_steps(job_id, [export.step for export in exports])
    return [
        Checkpoint(export.step, export.created_at, export.bytes or 0, _by_split(metrics, export.step))
        for export in exports
    ]


def _by_split(metrics: Sequence[Metric], step: int) -> dict[str, dict[str, float | None]]:
    return {metric.split: metric.values for metric in metrics if metric.step == step}  # the last one counts


def _on_storage(directory: Path) -> list[tuple[int, datetime, int]]:
    """Step, time and bytes of each. A checkpoint has its name only when it is whole (workers.engine.checkpoint)."""
    found = []
    for path in directory.glob("step-*"):
        match = re.fullmatch(r"step-(\d+)", path.name, re.ASCII)
        if match is None:
            continue
        try:
            stats = [file.stat() for file in path.iterdir()]
        except FileNotFoundError:  # a newer one has just taken its place
            continue
        saved_at = datetime.fromtimestamp(max((one.st_mtime for one in stats), default=0.0), UTC)
        found.append((int(match[1]), saved_at, sum(one.st_size for one in stats)))
    return sorted(found)
