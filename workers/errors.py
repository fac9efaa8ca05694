"""What an attempt raises: for failures that it understands, and when it has paused."""

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
