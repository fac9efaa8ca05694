"""What the controller asks of an experiment tracker. Implementations block: call them in a thread."""

from collections.abc import Sequence
from typing import Protocol

from service.db.tables import Job, Metric


class TrackerError(Exception):
    """The tracker did not take what it was told; it is told again later."""


class Tracker(Protocol):
    """Each method may be called again after a crash, with the same arguments, and raises TrackerError."""

    name: str

    def open(self, job: Job) -> str:
        """The ID of the job's run, which is made if it is not there."""
        ...

    def told(self, job: Job, run_id: str, last: int) -> int:
        """The number of the last metric that the run has. last: the one that was noted."""
        ...

    def send(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """Names are SPLIT/NAME; values that are not finite are left out."""
        ...

    def close(self, run_id: str, job: Job) -> None:
        """The job has ended."""
        ...

    def leave(self) -> None:
        """This process tells no more for now; jobs may go on."""
        ...
