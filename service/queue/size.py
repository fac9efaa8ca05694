"""How big a job is: what the length of its run and its memory are estimated from."""

from dataclasses import dataclass
from typing import Any, Self

from service.spec import AlignmentJob


@dataclass(frozen=True)
class JobSize:
    """What admission found out; None for what it could not know: models on the Hub, rows that the attempt reads.

    parameters: of the model. rows: usable ones of the training file. bytes: of that file.
    """

    parameters: int | None = None
    rows: int | None = None
    bytes: int | None = None

    @classmethod
    def of(cls, stored: dict[str, Any] | None) -> Self:
        return cls(**(stored or {}))

    def work(self, spec: AlignmentJob) -> float | None:
        """Parameters times bytes of text trained on, for each policy worker: what run times are compared by. None if
        one of them is not known."""
        if not self.parameters or not self.bytes:
            return None
        passes = spec.training.epochs
        if spec.training.max_steps is not None:
            if not self.rows:
                return None
            passes = min(passes, spec.training.max_steps * spec.training.batch_size / self.rows)
        return self.parameters * self.bytes * passes / spec.resources.policy.workers
