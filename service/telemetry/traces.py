"""OpenTelemetry traces, sent to OTEL_EXPORTER_OTLP_ENDPOINT if that is set (extra `otel`; OTLP over HTTP).

A request is a span of its caller's trace. A job is a trace of its own, whose IDs follow from the job's ID: any process
that knows the job adds to it, and nothing is stored. Its stages become spans when their reports are committed, so
attempts need neither the exporter nor its credentials; they are told their place as TRACEPARENT.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any

from service.errors import ServiceError
from service.telemetry import context

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_SAMPLED = 1

_provider: "TracerProvider | None" = None
_fixed_ids: ContextVar[tuple[int, int] | None] = ContextVar("fixed_ids", default=None)


def configure(service_name: str) -> None:
    """Begin to send traces, if the environment names an endpoint; OTEL_... variables say the rest.

    Raises ServiceError if it does and the extra is not installed.
    """
    global _provider
    if not os.environ.get(ENDPOINT):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    except ImportError as error:
        raise ServiceError(f"{ENDPOINT} is set, but OpenTelemetry is not installed: plumbline[otel] has it.") from error

    class Ids(RandomIdGenerator):
        """Random, except for the span of a whole job."""

        def generate_trace_id(self) -> int:
            fixed = _fixed_ids.get()
            return fixed[0] if fixed else super().generate_trace_id()

        def generate_span_id(self) -> int:
            fixed = _fixed_ids.get()
            return fixed[1] if fixed else super().generate_span_id()

    name = os.environ.get("OTEL_SERVICE_NAME", service_name)
    _provider = TracerProvider(resource=Resource.create({"service.name": name}), id_generator=Ids())
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))


def shut_down() -> None:
    """Send what has not been sent, and stop. The end of the process does so too."""
    global _provider
    if _provider is not None:
        _provider.shutdown()
        _provider = None


@contextmanager
def request_span(method: str, traceparent: str | None) -> Iterator[Any]:
    """The span of a request, in the trace that `traceparent` (W3C) names; None if no traces are sent."""
    if _provider is None:
        yield None
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    parent = TraceContextTextMapPropagator().extract({"traceparent": traceparent} if traceparent else {})
    tracer = _provider.get_tracer("plumbline")
    with tracer.start_as_current_span(
        method,
        parent,
        SpanKind.SERVER,
        {"http.request.method": method},
        record_exception=False,  # its message may be anything; the log has it, with secrets hidden
        set_status_on_exception=False,
    ) as span:
        context.add(trace_id=f"{span.get_span_context().trace_id:032x}")
        yield span


def end_request(span: Any, route: str, method: str, status: int) -> None:
    """What is known of a request when it ends. Does nothing for None."""
    if span is not None:
        span.update_name(f"{method} {route}")
        span.set_attributes({"http.route": route, "http.response.status_code": status})
        if status >= 500:
            from opentelemetry.trace import StatusCode

            span.set_status(StatusCode.ERROR)


def traceparent(job_id: str) -> str | None:
    """The job's span in the form of W3C; None if no traces are sent."""
    if _provider is None:
        return None
    trace_id, span_id = _ids(job_id)
    return f"00-{trace_id:032x}-{span_id:016x}-{_SAMPLED:02x}"


def job_span(job_id: str, state: str, started: datetime, ended: datetime) -> None:
    """A whole job, from its submission to its end."""
    if _provider is None:
        return
    from opentelemetry.context import Context

    token = _fixed_ids.set(_ids(job_id))
    try:
        span = _provider.get_tracer("plumbline").start_span(
            "job",
            Context(),
            attributes={"plumbline.job.id": job_id, "plumbline.job.state": state},
            start_time=_ns(started),
        )
    finally:
        _fixed_ids.reset(token)
    span.end(_ns(ended))


def part_span(job_id: str, name: str, seconds: float, ended: datetime, attempt: int | None = None) -> None:
    """A part of a job that took `seconds`, such as a stage. attempt: its number, if it was part of one."""
    if _provider is None:
        return
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    trace_id, span_id = _ids(job_id)
    job = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(_SAMPLED))
    span = _provider.get_tracer("plumbline").start_span(
        name,
        set_span_in_context(NonRecordingSpan(job), Context()),
        attributes={"plumbline.job.id": job_id} | ({} if attempt is None else {"plumbline.attempt.number": attempt}),
        start_time=_ns(ended) - int(seconds * 1e9),
    )
    span.end(_ns(ended))


def _ids(job_id: str) -> tuple[int, int]:
    digest = hashlib.sha256(job_id.encode()).digest()
    return int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])


def _ns(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)
