"""The state machine of jobs: every state, what it means, and which may follow which."""

from enum import StrEnum


class JobState(StrEnum):
    QUEUED = "queued"  # waits for the controller; nothing of it is on the cluster
    STARTING = "starting"  # an attempt exists; its driver has not spoken yet
    RUNNING = "running"  # the attempt's driver has reported to us
    CANCELLING = "cancelling"  # a client asked to stop; the attempt may still hold actors
    SUCCEEDED = "succeeded"  # the model is published
    FAILED = "failed"  # the user must change something, or we gave up; `error` says which
    CANCELLED = "cancelled"  # stopped on request; nothing of it is on the cluster

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
LIVE = frozenset(JobState) - TERMINAL

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.STARTING, JobState.CANCELLED}),
    # back to queued: the attempt was lost through no fault of the user, and another one is allowed
    JobState.STARTING: frozenset(
        {JobState.RUNNING, JobState.QUEUED, JobState.FAILED, JobState.CANCELLING}
    ),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.QUEUED, JobState.FAILED, JobState.CANCELLING}),
    # an attempt that publishes before it hears of the cancel has succeeded
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.SUCCEEDED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}  # fmt: skip


class AttemptState(StrEnum):
    PENDING = "pending"  # leased; its submission to the cluster may or may not have been received
    RUNNING = "running"  # its driver has reported
    SUCCEEDED = "succeeded"  # said so itself
    FAILED = "failed"  # said so itself, or was lost (`interrupted`)
    CANCELLED = "cancelled"  # stopped on request

    @property
    def terminal(self) -> bool:
        return self in {AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.CANCELLED}


class DeploymentState(StrEnum):
    DEPLOYING = "deploying"  # wanted; the engines are not both ready yet
    READY = "ready"  # base and aligned answer
    FAILED = "failed"  # Serve gave up; `message` says why. A new POST tries again
    REMOVING = "removing"  # not wanted any more; Serve may still hold it
