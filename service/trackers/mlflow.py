"""MLflow (extra `mlflow`), through its own client; MLFLOW_TRACKING_... variables hold credentials and certificates.

The client blocks: call these in a thread. Saying a thing twice changes nothing: a run is found again by its job's tag,
and a metric that MLflow has with the same step, time and value is not doubled.
"""

from collections.abc import Sequence

from service.db.tables import Job, Metric
from service.errors import ServiceError
from service.jobs.states import JobState
from service.trackers.base import TrackerError

_TAG = "plumbline.job_id"
_BATCH = 1000  # MLflow's limit for one request
_STATUS = {JobState.SUCCEEDED: "FINISHED", JobState.FAILED: "FAILED", JobState.CANCELLED: "KILLED"}


class Mlflow:
    name = "mlflow"

    def __init__(self, url: str, experiment: str) -> None:
        """Raises ServiceError if MLflow's client is not installed. Connects to nothing yet."""
        try:
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise ServiceError(
                "PLUMBLINE_MLFLOW_URL is set, but MLflow's client is not installed: plumbline[mlflow] has it."
            ) from error
        self._client = MlflowClient(tracking_uri=url)
        self._experiment = experiment
        self._failures = (MlflowException, OSError)  # requests' errors are OSErrors

    def open(self, job: Job) -> str:
        try:
            experiment_id = self._experiment_id()
            found = self._client.search_runs([experiment_id], f"tags.`{_TAG}` = '{job.id}'", max_results=1)
            if found:
                return str(found[0].info.run_id)
            tags = {_TAG: job.id, "plumbline.project_id": job.project_id}
            name = job.spec["name"] or job.id
            started_ms = int(job.created_at.timestamp() * 1000)
            return str(self._client.create_run(experiment_id, started_ms, tags, name).info.run_id)
        except self._failures as error:
            raise TrackerError(f"MLflow: {error}") from error

    def told(self, job: Job, run_id: str, last: int) -> int:  # noqa: ARG002 - what is told is taken at once
        return last

    def send(self, run_id: str, metrics: Sequence[Metric]) -> None:
        from mlflow.entities import Metric as Value

        values = [
            Value(f"{metric.split}/{name}", value, int(metric.created_at.timestamp() * 1000), metric.step)
            for metric in metrics
            for name, value in metric.values.items()
            if value is not None
        ]
        try:
            for start in range(0, len(values), _BATCH):
                self._client.log_batch(run_id, metrics=values[start : start + _BATCH])
        except self._failures as error:
            raise TrackerError(f"MLflow: {error}") from error

    def close(self, run_id: str, job: Job) -> None:
        assert job.finished_at is not None
        try:
            self._client.set_terminated(run_id, _STATUS[job.state], int(job.finished_at.timestamp() * 1000))
        except self._failures as error:
            raise TrackerError(f"MLflow: {error}") from error

    def leave(self) -> None:
        """Nothing is held."""

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        return str(found.experiment_id if found is not None else self._client.create_experiment(self._experiment))
