"""Has checkpoints made into models on the cluster, each by a Ray job of its own on a control node.

The answer is on the storage (service.spec.export): a model's directory that is whole, or the reason why there is none.
So a crash at any point, here or there, leaves something that the next look understands. At most
`settings.max_running_exports` run at one time; a try that was lost is repeated `settings.max_attempts` times in all.
"""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from service.archive.local import bring_models
from service.cluster.jobs import RayJob, RayJobStatus
from service.controller.context import Controller, Since
from service.controller.watch import OUTCOME_GRACE_S
from service.db.serving_tables import CheckpointExport
from service.db.tables import Job
from service.errors import InvalidState, ModelNotFound, ModelUnusable, NotFound, Unavailable
from service.exports import service as exports
from service.exports.pin import unpin
from service.jobs.repository import JobRepository
from service.jobs.states import ExportState
from service.queue.size import JobSize
from service.spec import AlignmentJob, Storage
from service.spec.export import ExportBrief, Refusal, refusal_path
from service.spec.pools import Pool
from service.spec.reports import Fault
from service.telemetry import context

_LIBRARIES_BYTES = 2 * 2**30


@dataclass
class Export:
    """The reconciler and what it remembers between passes."""

    gone: Since = field(default_factory=Since)  # no process of the try is left, and no answer
    waits: Since = field(default_factory=Since)  # for a node

    async def reconcile(self, controller: Controller) -> None:
        async with controller.database.reading() as session:
            rows = await exports.unsettled(session)
        for since in (self.gone, self.waits):
            since.keep_only({submission_id(row) for row in rows})
        running = sum(row.state is ExportState.RUNNING for row in rows)
        trouble: Unavailable | None = None
        for row in rows:
            with context.bound(job_id=row.job_id):
                try:
                    if row.deleted_at is not None:
                        await exports.finish_deletion(controller.database, controller.settings, row)
                    elif row.state is ExportState.RUNNING:
                        await self._watch(controller, row)
                    elif running < controller.settings.max_running_exports:
                        if (readied := await _readied(controller, row)) is None:
                            continue
                        running += 1
                        await _submit(controller, row, *readied)
                except InvalidState:  # changed since it was read: look again
                    continue
                except Unavailable as error:  # others may need nothing of the object store
                    trouble = error
        if trouble is not None:
            raise trouble

    async def _watch(self, controller: Controller, row: CheckpointExport) -> None:
        storage = Storage(controller.settings.storage_root)
        ray_job = await controller.jobs.get(submission_id(row))  # before the answer, which comes first
        if (num_bytes := await asyncio.to_thread(_size, storage.model(row.job_id, row.step))) is not None:
            async with controller.database.transaction() as session:
                await exports.succeeded(session, row, num_bytes)
            await asyncio.to_thread(unpin, storage, row.job_id, row.step)
        elif ray_job is not None and self._found_no_place(controller, row, ray_job):
            await controller.jobs.stop(submission_id(row))
            await _fail_for_want_of_memory(controller, row, ray_job)
        elif (ray_job is None or ray_job.status.terminal) and self._gone_s(row) >= OUTCOME_GRACE_S:
            await _end(controller, row, await _refusal(storage, row, ray_job))

    def _found_no_place(self, controller: Controller, row: CheckpointExport, ray_job: RayJob) -> bool:
        """Neither within our patience nor within Ray's own, of a quarter of an hour."""
        if ray_job.status is RayJobStatus.PENDING:
            waited_s = self.waits.lasting_s(submission_id(row), time.monotonic())
            return waited_s >= controller.settings.start_timeout_s
        return ray_job.status is RayJobStatus.FAILED and ray_job.node_id is None

    def _gone_s(self, row: CheckpointExport) -> float:
        return self.gone.lasting_s(submission_id(row), time.monotonic())


def submission_id(row: CheckpointExport) -> str:
    """What Ray knows a try by; a second submission of it is no second try."""
    return f"export-{row.job_id}-{row.step}-{row.generation}"


def memory_bytes(job: Job) -> int:
    """Of an export: the model in float32 (workers.checkpoint_export), and the libraries. As if it were small where
    admission could not see how large it is."""
    return 4 * (JobSize.of(job.size).parameters or 0) + _LIBRARIES_BYTES


async def _readied(controller: Controller, row: CheckpointExport) -> tuple[Job, AlignmentJob] | None:
    """The job and what it asked for, with the model that it started from on the storage; None if the export has failed
    for want of one of them. Raises Unavailable while the model is on its way."""
    async with controller.database.reading() as session:
        job = await JobRepository(session).get(row.job_id)
    try:
        spec = AlignmentJob.model_validate(job.spec)
        needed = spec.model_copy(update={"reference": None})  # which may be gone, and no export reads it
        await bring_models(controller.database, controller.settings, needed, wait_s=0)
    except ValidationError:
        message = "The job was accepted by another version, and this one does not take its options."
    except (ModelNotFound, ModelUnusable, NotFound) as error:
        message = error.detail
    else:
        return job, spec
    async with controller.database.transaction() as session:
        await exports.failed(session, row, message)
    return None


async def _submit(controller: Controller, row: CheckpointExport, job: Job, spec: AlignmentJob) -> None:
    settings = controller.settings
    brief = ExportBrief(
        job_id=row.job_id,
        step=row.step,
        generation=row.generation,
        storage=str(settings.storage_root.absolute()),
        model=spec.model,
        method=spec.training.method,
        seed=spec.training.seed,
    )
    await controller.jobs.submit(
        submission_id(row),
        controller.code.export,
        env_vars={"PLUMBLINE_EXPORT": brief.model_dump_json()},
        label_selector=Pool.CONTROL.selector,
        memory_bytes=memory_bytes(job),
    )
    async with controller.database.transaction() as session:
        await exports.submitted(session, row)


async def _end(controller: Controller, row: CheckpointExport, refusal: Refusal) -> None:
    async with controller.database.transaction() as session:
        if refusal.fault is Fault.SYSTEM and row.failures + 1 < controller.settings.max_attempts:
            await exports.try_again(session, row, refusal.message)
        else:
            await exports.failed(session, row, refusal.message)


async def _fail_for_want_of_memory(controller: Controller, row: CheckpointExport, ray_job: RayJob) -> None:
    async with controller.database.transaction() as session:
        job = await JobRepository(session).get(row.job_id)
        said = (ray_job.message.strip().splitlines() or ["nothing"])[0]
        reason = (
            "It was not started: it holds the whole model in float32 and waited for "
            f"{memory_bytes(job) / 2**30:.0f} GiB of memory on a node labelled pool=control or pool=shared. Ask again "
            f"when fewer jobs run, or have such a node added. Ray says: {said[:500]}"
        )
        await exports.failed(session, row, reason)


async def _refusal(storage: Storage, row: CheckpointExport, ray_job: RayJob | None) -> Refusal:
    """What the try said, or what can be said of one that ended without a word."""
    path = refusal_path(storage.pinned(row.job_id, row.step))
    try:
        said = Refusal.model_validate_json(await asyncio.to_thread(path.read_bytes))
        if said.generation == row.generation:
            return said
    except (FileNotFoundError, ValidationError):
        pass
    if ray_job is None:
        message = "The cluster does not know the export any more: it has been started anew."
    else:
        lines = ray_job.message.strip().splitlines() or ["nothing"]
        message = f"The export ended without a result. Ray says: {lines[-1][:500]}"
    return Refusal(generation=row.generation, code="interrupted", message=message, fault=Fault.SYSTEM)


def _size(model: Path) -> int | None:
    """None if it is not there."""
    if not model.is_dir():
        return None
    return sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
