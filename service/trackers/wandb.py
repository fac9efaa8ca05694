"""Weights & Biases (extra `wandb`), through its own client: a run for each job, whose ID is the job's.

A metric's number is W&B's step, of which a run takes each only once and in order; the step of training is the value
`step`, and what charts are drawn over. The client keeps a run open and sends in the background, so what it was told may
be lost with its process: the first time that a process opens a run, it asks W&B how far the run has come.
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.db.tables import Job, Metric
from service.errors import ServiceError
from service.jobs.states import JobState
from service.trackers.base import TrackerError

_INIT_TIMEOUT_S = 20.0
_FINISH_TIMEOUT_S = 60.0
_SPLITS = ("train", "held_out")
_OF_SPEC = ("model", "reference", "losses", "training", "data", "resources")  # what a run is compared by


class Wandb:
    name = "wandb"

    def __init__(
        self, project: str, directory: Path, *, entity: str | None, url: str | None, api_key: str | None, offline: bool
    ) -> None:
        """directory: for the client's files until they are sent. Raises ServiceError if W&B's client is not installed.
        Connects to nothing yet."""
        try:
            import wandb
        except ImportError as error:
            raise ServiceError(
                "PLUMBLINE_WANDB_PROJECT is set, but W&B's client is not installed: plumbline[wandb] has it."
            ) from error
        logging.getLogger("wandb").setLevel(logging.WARNING)  # it says what it does, with each run's configuration
        self._client: Any = wandb
        self._project, self._entity = project, entity
        self._directory = directory
        self._mode = "offline" if offline else "online"
        self._options = {"base_url": url} if url is not None else {}
        self._options |= {"api_key": api_key} if api_key is not None else {}
        self._failures = (wandb.errors.Error, OSError)  # time-outs are OSErrors
        self._runs: dict[str, Any] = {}
        self._reached: dict[str, int] = {}  # by run, until somebody asks

    def open(self, job: Job) -> str:
        if job.id not in self._runs:
            self._open(job)
        return job.id

    def told(self, job: Job, run_id: str, last: int) -> int:
        self.open(job)
        return self._reached.pop(run_id, last)

    def send(self, run_id: str, metrics: Sequence[Metric]) -> None:
        try:
            for metric in metrics:
                values = {f"{metric.split}/{name}": value for name, value in metric.values.items() if value is not None}
                values |= {"step": metric.step, "reported_at": metric.created_at.timestamp()}
                self._runs[run_id].log(values, step=metric.number, commit=True)
        except self._failures as error:
            raise self._given_up(error) from error

    def close(self, run_id: str, job: Job) -> None:
        run = self._runs.pop(run_id)
        offline, files = run.offline, Path(run.settings.sync_dir)
        try:
            run.summary["plumbline/state"] = str(job.state)
            run.finish(exit_code=0 if job.state is JobState.SUCCEEDED else 1)
        except self._failures as error:
            raise self._given_up(error) from error
        if not offline:  # all is sent
            shutil.rmtree(files, ignore_errors=True)

    def leave(self) -> None:
        runs, self._runs, self._reached = self._runs, {}, {}
        try:
            for run in runs.values():
                run.finish()
        except self._failures as error:
            raise self._given_up(error) from error

    def _open(self, job: Job) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        # what runs is the control plane: nothing of its machine, its code or its output is of the job
        of_the_job_alone = {
            "console": "off",
            "disable_git": True,
            "save_code": False,
            "x_disable_machine_info": True,
            "x_disable_meta": True,
            "x_disable_stats": True,
            "x_save_requirements": False,
        }
        limits = {
            "init_timeout": _INIT_TIMEOUT_S,
            "finish_timeout": _FINISH_TIMEOUT_S,
            "finish_timeout_raises": True,
            "silent": True,
        }
        settings = self._client.Settings(
            root_dir=str(self._directory), reinit="create_new", **of_the_job_alone, **limits, **self._options
        )
        config = {name: job.spec[name] for name in _OF_SPEC if job.spec.get(name) is not None}
        try:
            run = self._client.init(
                mode=self._mode,
                project=self._project,
                entity=self._entity,
                id=job.id,
                name=job.spec["name"] or job.id,
                config=config | {"plumbline": {"job_id": job.id, "project_id": job.project_id}},
                resume="allow",
                settings=settings,
            )
            for split in _SPLITS:
                run.define_metric(f"{split}/*", step_metric="step")
        except self._failures as error:
            raise self._given_up(error) from error
        if not run.offline:  # otherwise there is nobody to ask
            self._reached[job.id] = run.starting_step - 1 if run.resumed else 0
        self._runs[job.id] = run

    def _given_up(self, error: Exception) -> TrackerError:
        """Ends the client's own process, which would refuse to open the run again. Runs are opened anew when they are
        told more, and say how far they came."""
        self._runs, self._reached = {}, {}
        self._client.teardown()
        return TrackerError(f"W&B: {error}")
