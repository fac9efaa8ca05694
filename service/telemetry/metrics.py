"""The metrics that a process counts itself, for Prometheus; docs/observability.md defines each. Those that are read
from the database are in `service.telemetry.database_metrics`.

Labels take values from fixed sets only: what a client or an attempt may choose is "other" unless it is known here.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

disable_created_metrics()  # type: ignore[no-untyped-call] # a series more for each one, which nobody asks for

# Of API and controller; both may live in one process.
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LONG_SECONDS = (1, 5, 15, 60, 300, 900, 3600, 3 * 3600, 12 * 3600, 24 * 3600, 3 * 24 * 3600)

# API
HTTP_SECONDS = Histogram(
    "plumbline_http_request_seconds",
    "From a request's first byte to the beginning of its answer",
    ["method", "route", "status"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
STREAM_LAG_SECONDS = Histogram(
    "plumbline_stream_lag_seconds",
    "From the writing of a line of a job's log to its sending to whoever follows the job",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
OPEN_STREAMS = Gauge("plumbline_open_streams", "Event streams that clients hold open", registry=REGISTRY)

# Jobs, counted by the process that writes the change
TRANSITIONS = Counter("plumbline_job_transitions", "Jobs that entered a state", ["state"], registry=REGISTRY)
QUEUE_WAIT_SECONDS = Histogram(
    "plumbline_queue_wait_seconds",
    "From a job's submission to its first attempt's first word",
    buckets=_LONG_SECONDS,
    registry=REGISTRY,
)
ATTEMPTS_FAILED = Counter(
    "plumbline_attempts_failed", "Attempts that failed, by who can do something about it", ["fault"], registry=REGISTRY
)
EVENTS = Counter("plumbline_events", "Events appended to jobs' logs", ["type"], registry=REGISTRY)

# What attempts report
STAGE_SECONDS = Histogram(
    "plumbline_stage_seconds", "Duration of a stage that was completed", ["stage"], buckets=_LONG_SECONDS,
    registry=REGISTRY,
)  # fmt: skip
REFERENCE_PAIRS = Counter(
    "plumbline_reference_pairs",
    "Pairs that needed reference log-probs: found in the reference store (hit) or to be scored (miss)",
    ["result"],
    registry=REGISTRY,
)
TRAIN_STEPS = Counter("plumbline_train_steps", "Optimizer steps reported", registry=REGISTRY)
TRAIN_TOKENS = Counter("plumbline_train_tokens", "Tokens that went through the policy", registry=REGISTRY)
POLICY_WAIT_SECONDS = Counter(
    "plumbline_policy_wait_seconds", "Time that training waited for reference scores", registry=REGISTRY
)
REPORT_LAG_SECONDS = Histogram(
    "plumbline_report_lag_seconds",
    "How long the oldest report of a batch had waited in its attempt",
    buckets=(0.1, 0.5, 1, 2.5, 5, 15, 60, 300, 1800),
    registry=REGISTRY,
)

# Controller
RECONCILE_SECONDS = Histogram(
    "plumbline_reconcile_seconds", "Duration of one pass of a reconciler", ["reconciler"], buckets=_SECONDS,
    registry=REGISTRY,
)  # fmt: skip
RECONCILE_TROUBLES = Counter(
    "plumbline_reconcile_troubles",
    "Passes that ended early: cluster or database in trouble",
    ["reconciler"],
    registry=REGISTRY,
)
RECONCILED_AT = Gauge(
    "plumbline_reconciled_timestamp_seconds",
    "When a reconciler's last whole pass ended",
    ["reconciler"],
    registry=REGISTRY,
)
