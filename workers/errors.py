"""What an attempt raises: for failures that it understands, and when it has paused."""

from service.spec import Resources
from service.spec.pools import Pool
from service.spec.reports import Failure, Fault
from service.spec.stages import Stage


class AttemptError(Exception):
    """A failure with a stable code and a message that says what to do; anything else raised is our bug."""

    def __init__(self, code: str, message: str, fault: Fault = Fault.USER) -> None:
        super().__init__(code, message, fault)  # all three, so that it survives pickling between Ray processes
        self.code = code
        self.message = message
        self.fault = fault

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def failure(self, stage: Stage | None, log_tail: list[str]) -> Failure:
        return Failure(code=self.code, message=self.message, fault=self.fault, stage=stage, log_tail=log_tail)


class Paused(Exception):
    """Training has stopped on request between two steps, and its checkpoint is on the disk."""


def not_placed(resources: Resources, gpus_per_worker: float, why: str) -> AttemptError:
    """`training_not_started`: the policy pool gave training no place."""
    return AttemptError(
        "training_not_started",
        f"Training could not be placed or kept on the policy pool: {why}. It asked for {resources.policy.workers} "
        f"worker(s) with {resources.policy.cpus_per_worker:g} CPU slots and {gpus_per_worker:g} GPUs each on nodes "
        f"labelled {Pool.POLICY.selector}, for {resources.start_timeout_s:.0f} s.",
        Fault.SYSTEM,
    )
