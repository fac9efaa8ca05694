"""Reports from the attempt to the API: numbered, sent in order by one thread, kept until they are acknowledged."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import httpx

from service.spec.reports import (
    AttemptBrief,
    EventReport,
    MetricsReport,
    OutcomeReport,
    ProgressReport,
    Report,
    ReportAck,
    ReportBatch,
)
from service.spec.stages import Stage

logger = logging.getLogger(__name__)

_BATCH = 500
_MAX_BACKOFF_S = 15.0
_PATIENCE_S = 24 * 3600.0  # how long a finished attempt waits for an API that is away


class Refused(Exception):
    """The API does not take this attempt's word: another one has its place, or its end is recorded."""


class Reporter:
    """Collects reports from any thread; a background thread delivers them and doubles as the heartbeat.

    While the API is away reports pile up here and the attempt goes on. `on_stop` is called once for each, from that
    thread, when the job is to be paused (`paused` is set) or cancelled (`cancelled` is set), or the API refuses the
    reports (`refused` is set).
    """

    def __init__(self, api_url: str, attempt_id: str, token: str, *, on_stop: Callable[[], None]) -> None:
        self._url = f"{api_url}/internal/attempts/{attempt_id}"
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {token}"},
            timeout=10,
        )
        self._on_stop = on_stop
        self._every_s = 2.0  # until the brief says
        self._pending: deque[Report] = deque()
        self._put_at: deque[float] = deque()  # of each pending report, by the monotonic clock
        self._first_seq = 1  # number of the oldest pending report
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._deliver, name="reporter", daemon=True)
        self.paused = threading.Event()
        self.cancelled = threading.Event()
        self.refused = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Waits until everything is delivered, for as long as it takes within a day."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(_PATIENCE_S)
        self._client.close()

    def brief(self) -> AttemptBrief:
        """What the attempt is to do; waits for an API that is away."""
        backoff_s = 0.5
        while True:
            try:
                response = self._client.get(self._url)
                if response.status_code < 500:
                    brief = AttemptBrief.model_validate_json(response.raise_for_status().content)
                    self._every_s = brief.heartbeat_every_s
                    return brief
            except httpx.TransportError as error:
                logger.warning("the API cannot be reached, trying again: %s", error)
            time.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)

    def event(self, type: str, message: str, stage: Stage | None = None, **data: Any) -> None:
        self.put(EventReport(type=type, message=message, stage=stage, data=data))

    def metrics(self, report: MetricsReport) -> None:
        self.put(report)

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None:
        self.put(ProgressReport(stage=stage, done=done, total=total, unit=unit))

    def outcome(self, outcome: OutcomeReport) -> None:
        self.put(outcome)

    def put(self, report: Report) -> None:
        if isinstance(report, EventReport):
            logger.info("%s: %s", report.type, report.message)
        with self._changed:
            self._pending.append(report)
            self._put_at.append(time.monotonic())
            self._changed.notify_all()

    def _deliver(self) -> None:
        backoff_s = 0.5
        while True:
            with self._changed:
                if not self._pending and not self._closing:
                    self._changed.wait(self._every_s)
                if self._closing and not self._pending:
                    return
                batch = ReportBatch(
                    first_seq=self._first_seq,
                    reports=[self._pending[i] for i in range(min(_BATCH, len(self._pending)))],
                    waited_s=time.monotonic() - self._put_at[0] if self._put_at else 0,
                )
            try:
                ack = self._send(batch)
            except Refused as error:
                logger.error("the API does not take this attempt's reports any more: %s", error)
                self.refused.set()
                self._on_stop()
                return
            except httpx.TransportError as error:
                logger.warning("reports wait for the API: %s", error)
                ack = None
            if ack is None:
                time.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)
                continue
            backoff_s = 0.5
            with self._changed:
                for _ in range(ack.last_seq + 1 - self._first_seq):
                    self._pending.popleft()
                    self._put_at.popleft()
                self._first_seq = ack.last_seq + 1
            for asked, heard in ((ack.pause, self.paused), (ack.cancel, self.cancelled)):
                if asked and not heard.is_set():
                    heard.set()
                    self._on_stop()

    def _send(self, batch: ReportBatch) -> ReportAck | None:
        """The acknowledgement, or None when the API cannot answer now."""
        response = self._client.post(
            f"{self._url}/reports", content=batch.model_dump_json(), headers={"Content-Type": "application/json"}
        )
        if response.is_success:
            return ReportAck.model_validate_json(response.content)
        if response.status_code >= 500 or response.status_code == 429:
            logger.warning("reports wait: the API answered %s", response.status_code)
            return None
        raise Refused(response.text)
