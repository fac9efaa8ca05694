"""Event files, read by another implementation: what they hold, what a resumed attempt replaces, and that a full disk
stops nothing."""

import logging
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from service.spec.reports import EventReport, MetricsReport
from workers.tensorboard import EventFiles


def events(directory: Path) -> list[Any]:
    """Of all files, in the order of their names: TFRecord framing, taken apart."""
    found = []
    for path in sorted(directory.iterdir()):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            record, content = content[: 16 + length], content[16 + length :]
            assert int.from_bytes(record[8:12], "little") == masked_crc32c(record[:8])
            assert int.from_bytes(record[-4:], "little") == masked_crc32c(record[12:-4])
            found.append(Event.FromString(record[12:-4]))
    return found


def started(after: int) -> EventReport:
    return EventReport(type="train.started", message="m", data={"resumed_from_step": after})


def test_values_are_written_by_step_and_split_and_those_that_are_not_finite_left_out(tmp_path: Path) -> None:
    with EventFiles(tmp_path / "tensorboard") as files:
        files.put(started(0))
        files.put(MetricsReport(step=1, values={"loss": 0.5, "kl": None}))
        files.put(MetricsReport(step=1, split="held_out", values={"loss": 0.25}))
        written = events(tmp_path / "tensorboard")  # also before the end: a killed attempt leaves what it has
    version, start, train, held_out = written
    assert version.file_version == "brain.Event:2"
    assert (start.session_log.status, start.step) == (SessionLog.START, 1)
    assert [(value.tag, value.simple_value) for value in train.summary.value] == [("train/loss", 0.5)]
    assert [(value.tag, value.simple_value) for value in held_out.summary.value] == [("held_out/loss", 0.25)]
    assert train.step == held_out.step == 1


def test_a_resumed_attempt_says_from_where_on_it_replaces_the_one_before(tmp_path: Path) -> None:
    with EventFiles(tmp_path) as files:
        files.put(started(40))
    assert [event.step for event in events(tmp_path) if event.HasField("session_log")] == [41]


def test_an_attempt_that_reports_no_values_leaves_no_file(tmp_path: Path) -> None:
    with EventFiles(tmp_path / "tensorboard") as files:
        files.put(EventReport(type="stage.started", message="m"))
    assert not (tmp_path / "tensorboard").exists()


def test_a_disk_that_is_full_is_said_once_and_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), EventFiles(tmp_path) as files:
        files.put(MetricsReport(step=1, values={"loss": 1}))
        assert files._file is not None
        files._file.close()
        files._file = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 - it is closed with the files
        files.put(MetricsReport(step=2, values={"loss": 1}))
        files.put(MetricsReport(step=3, values={"loss": 1}))
    said = [record for record in caplog.records if record.name == "workers.tensorboard"]  # others' garbage may speak up
    assert [record.getMessage() for record in said] == [
        f"no more TensorBoard files in {tmp_path}: [Errno 28] No space left on device"
    ]
    assert [event.step for event in events(tmp_path) if event.HasField("summary")] == [1]


def test_long_and_large_values_survive(tmp_path: Path) -> None:
    with EventFiles(tmp_path) as files:
        files.put(MetricsReport(step=2**31 - 1, values={f"metric_{i}": 1e300 for i in range(40)}))
    written = events(tmp_path)[-1]
    assert written.step == 2**31 - 1
    assert [value.simple_value for value in written.summary.value] == [float("inf")] * 40
