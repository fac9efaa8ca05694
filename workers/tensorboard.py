"""A run's curves as TensorBoard event files, published beside the model: `tensorboard --logdir MODEL/tensorboard`.

Written by the attempt's driver as the values come, one file per attempt. They are a copy of what the API keeps, so a
disk that refuses them is said once and holds nothing up.
"""

import logging
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from service.spec.reports import EventReport, MetricsReport, Report

logger = logging.getLogger(__name__)


class EventFiles:
    """Takes every report and writes the metrics, tagged SPLIT/NAME."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer: Any = None
        self._broken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._writer is not None and not self._broken:
            self._guarded(self._writer.close)

    def put(self, report: Report) -> None:
        if isinstance(report, EventReport) and report.type == "train.started":
            # TensorBoard drops what an interrupted attempt had written from this step on.
            start = Event(wall_time=time.time(), step=report.data["resumed_from_step"] + 1)
            start.session_log.CopyFrom(SessionLog(status=SessionLog.START))
            self._guarded(lambda: self._write(start))
        elif isinstance(report, MetricsReport):
            values = [
                Summary.Value(tag=f"{report.split}/{name}", simple_value=value)
                for name, value in report.values.items()
                if value is not None
            ]
            event = Event(wall_time=time.time(), step=report.step, summary=Summary(value=values))
            self._guarded(lambda: self._write(event))

    def _write(self, event: Any) -> None:
        if self._writer is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(self._directory / "events"))
        self._writer.write_event(event)
        self._writer.flush()

    def _guarded(self, write: Any) -> None:
        if self._broken:
            return
        try:
            write()
        except OSError as error:
            self._broken = True
            logger.warning("no more TensorBoard files in %s: %s", self._directory, error)
