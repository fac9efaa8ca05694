"""The states of an evaluation: what each means, and which may follow which."""

from enum import StrEnum


class EvaluationState(StrEnum):
    QUEUED = "queued"  # waits for the controller
    RUNNING = "running"  # models are asked, then judges; people may vote on what is answered already
    VOTING = "voting"  # all that machines do is done; people vote until somebody closes it
    COMPLETED = "completed"  # nothing changes any more
    FAILED = "failed"  # a model or judge cannot be asked; `error` says why
    CANCELLED = "cancelled"  # a client asked to stop; what was there by then is kept

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({EvaluationState.COMPLETED, EvaluationState.FAILED, EvaluationState.CANCELLED})
MACHINE = frozenset({EvaluationState.QUEUED, EvaluationState.RUNNING})  # the controller has work to do
OPEN = frozenset({EvaluationState.RUNNING, EvaluationState.VOTING})  # people may vote

TRANSITIONS: dict[EvaluationState, frozenset[EvaluationState]] = {
    EvaluationState.QUEUED: frozenset({EvaluationState.RUNNING, EvaluationState.FAILED, EvaluationState.CANCELLED}),
    EvaluationState.RUNNING: frozenset(
        {EvaluationState.VOTING, EvaluationState.COMPLETED, EvaluationState.FAILED, EvaluationState.CANCELLED}
    ),
    EvaluationState.VOTING: frozenset({EvaluationState.COMPLETED, EvaluationState.CANCELLED}),
    EvaluationState.COMPLETED: frozenset(),
    EvaluationState.FAILED: frozenset(),
    EvaluationState.CANCELLED: frozenset(),
}  # fmt: skip
