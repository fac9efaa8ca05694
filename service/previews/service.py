"""Looking at a file in a process of its own (`workers.data.preview`), which is started by name and may be killed.

The process reads what anybody may have uploaded. It is given neither the database nor any secret, and is bounded in
rows, memory and time; what does not fit is said to be the start of the file.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from weakref import WeakValueDictionary

from pydantic import ValidationError

from service.db.session import Database
from service.errors import DatasetInvalid, PreviewFailed, PreviewUnavailable
from service.jobs.admission import find_data
from service.jobs.model_admission import find_model
from service.previews.request import PreviewRequest
from service.settings import Settings
from service.spec import AlignmentJob, SourceKind
from service.spec.data_preview import DataPreview, PreviewLimits, PreviewOrder
from service.validation import explain

_MAX_ROWS = 20_000
_MAX_ANSWER_BYTES = 16 * 2**20
_TOLD = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR", "LD_LIBRARY_PATH")
_COMMAND = (sys.executable, "-m", "workers.data.preview")


class Previews:
    """Of one process of the API: how many files are looked at, or fetched for that, at one and the same time. Where
    there are several turns, no project takes the last one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turns = asyncio.Semaphore(settings.max_previews)
        self._turns_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # by project

    async def preview(self, database: Database, project_id: str, request: PreviewRequest) -> DataPreview:
        """Raises what submitting the job would raise for its model and data, PreviewFailed for rows or a tokenizer that
        cannot be used, and PreviewUnavailable where it took too long or tokenizers are not installed."""
        job = _job(request)
        turns = self._turns_of.setdefault(project_id, asyncio.Semaphore(max(1, self._settings.max_previews - 1)))
        try:
            async with asyncio.timeout(self._settings.preview_timeout_s), turns, self._turns:
                order = await self._order(database, project_id, request, job)
                said, errors, status = await _run(order)
        except TimeoutError as error:
            raise PreviewUnavailable(
                f"Looking at the file took longer than {self._settings.preview_timeout_s:g} s, or many others are "
                "being looked at: try again. A job reads it all the same."
            ) from error
        return _answer(said, errors, status)

    async def _order(
        self, database: Database, project_id: str, request: PreviewRequest, job: AlignmentJob
    ) -> PreviewOrder:
        found = await find_data(database, self._settings, project_id, "data.train", job.data.train)
        if found is None:
            where = (
                "is too large to be looked at here" if job.data.source is SourceKind.PATH else "is fetched by the job"
            )
            raise DatasetInvalid(
                f"What data.train names {where}: its report is there once the job's rows are prepared.",
                field="data.train",
            )
        tokenizer = None
        if request.model is not None:
            tokenizer = await find_model(database, self._settings, project_id, request.model, "model")
        return _ordered(self._settings, job, found[0], tokenizer[0] if tokenizer else None)


def _job(request: PreviewRequest) -> AlignmentJob:
    try:
        return request.job()
    except ValidationError as error:
        raise explain(error.errors(), request.model_dump(mode="json")) from error


def _ordered(settings: Settings, job: AlignmentJob, file: Path, tokenizer: Path | None) -> PreviewOrder:
    limits = PreviewLimits(
        rows=_MAX_ROWS, seconds=settings.preview_timeout_s / 3, memory_bytes=settings.preview_memory_bytes
    )
    return PreviewOrder(
        job=job.model_dump(mode="json"),
        file=str(file),
        tokenizer=str(tokenizer) if tokenizer is not None else None,
        limits=limits,
    )


async def _run(order: PreviewOrder) -> tuple[bytes, bytes, int]:
    """Standard output and error of the process, and its exit status. Whoever cancels this ends the process."""
    environment = {name: os.environ[name] for name in _TOLD if name in os.environ}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    process = await asyncio.create_subprocess_exec(
        *_COMMAND,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        said, errors = await process.communicate(order.model_dump_json().encode())
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    assert process.returncode is not None
    return said, errors, process.returncode


def _answer(said: bytes, errors: bytes, status: int) -> DataPreview:
    if status == 0 and len(said) <= _MAX_ANSWER_BYTES:
        answer = json.loads(said)
        if error := answer.get("error"):
            raise PreviewFailed(error["message"], reason=error["code"])
        return DataPreview.model_validate(answer["preview"])
    last = errors.decode(errors="replace").strip().rpartition("\n")[2]
    if last.startswith("ModuleNotFoundError"):
        raise PreviewUnavailable(
            "This deployment's API has no tokenizers (the extra `tokens` of the package). A job reads the file all the "
            "same, and has a data report once its rows are prepared."
        )
    raise PreviewUnavailable(
        f"The process that looks at the file ended without an answer (status {status}{': ' if last else ''}"
        f"{last[:300]}). A job reads the file all the same."
    )
