"""The state machine of jobs: every state, what it means, and which may follow which."""

from enum import StrEnum


class JobState(StrEnum):
    QUEUED = "queued"  # waits for the controller; nothing of it is on the cluster
    STARTING = "starting"  # an attempt exists; its driver has not spoken yet
    RUNNING = "running"  # the attempt's driver has reported to us
    PAUSING = "pausing"  # asked to save a checkpoint and leave; the attempt may still hold actors
    PAUSED = "paused"  # nothing of it is on the cluster; it keeps its place in the queue until it is resumed
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
    # failed: another version accepted it, and this one does not take its options
    JobState.QUEUED: frozenset({JobState.STARTING, JobState.PAUSED, JobState.CANCELLED, JobState.FAILED}),
    # back to queued: the attempt was lost through no fault of the user, and another one is allowed
    JobState.STARTING: frozenset(
        {JobState.RUNNING, JobState.QUEUED, JobState.FAILED, JobState.PAUSING, JobState.CANCELLING}
    ),
    JobState.RUNNING: frozenset(
        {JobState.SUCCEEDED, JobState.QUEUED, JobState.FAILED, JobState.PAUSING, JobState.CANCELLING}
    ),
    # an attempt that ends by itself before it hears of the pause has ended; one that is lost is paused all the same
    JobState.PAUSING: frozenset({JobState.PAUSED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLING}),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    # an attempt that publishes before it hears of the cancel has succeeded
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.SUCCEEDED}),
    JobState.SUCCEEDED: frozenset(),
    # a client asked for a retry, the one way out of an end
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
}  # fmt: skip


class AttemptState(StrEnum):
    PENDING = "pending"  # leased; its submission to the cluster may or may not have been received
    RUNNING = "running"  # its driver has reported
    SUCCEEDED = "succeeded"  # said so itself
    FAILED = "failed"  # said so itself, or was lost (`interrupted`)
    PAUSED = "paused"  # left on request, to be followed by another one
    CANCELLED = "cancelled"  # stopped on request

    @property
    def terminal(self) -> bool:
        return self not in {AttemptState.PENDING, AttemptState.RUNNING}


class DeploymentState(StrEnum):
    DEPLOYING = "deploying"  # wanted; base and aligned do not both answer yet
    READY = "ready"  # base and aligned answer
    SLEEPING = "sleeping"  # nobody asked for long; its engines are given up, and the next request brings them back
    FAILED = "failed"  # Serve gave up; `message` says why. A new POST tries again
    REMOVING = "removing"  # not wanted any more; Serve may still hold it


class ExportState(StrEnum):
    REQUESTED = "requested"  # the checkpoint is pinned; its export may or may not have been submitted to the cluster
    RUNNING = "running"  # submitted
    READY = "ready"  # the model is in the storage
    FAILED = "failed"  # `message` says why. A new POST tries again


class PromotionState(StrEnum):
    PENDING = "pending"  # waits until the model answers; the name still means the one before
    CURRENT = "current"  # what the name means
    PAST = "past"  # was current
    FAILED = "failed"  # its model did not come up; `message` says why
    WITHDRAWN = "withdrawn"  # another promotion, or the end of the name, came before it was healthy
