"""A run's curves as TensorBoard event files, published beside the model: `tensorboard --logdir MODEL/tensorboard`.

Written by the attempt's driver as the values come, one file per attempt. They are a copy of what the API keeps, so a
disk that refuses them is said once and holds nothing up.

The format is written here, some twenty lines of it: the packages that write it import torch and the clients of two
clouds, which every attempt would wait for. TFRecord framing: tensorflow's `record_writer.h`; messages: its
`event.proto` and `summary.proto`.
"""

import logging
import os
import socket
import struct
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import google_crc32c
import numpy as np

from service.spec.reports import EventReport, MetricsReport, Report

logger = logging.getLogger(__name__)

_VERSION, _SUMMARY, _SESSION_LOG = 3, 5, 7  # fields of Event
_SESSION_START = 1  # of SessionLog's status


class EventFiles:
    """Takes every report and writes the metrics, tagged SPLIT/NAME."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: BinaryIO | None = None
        self._broken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def put(self, report: Report) -> None:
        if isinstance(report, EventReport) and report.type == "train.started":
            # TensorBoard drops what an interrupted attempt had written from this step on.
            self._write(_SESSION_LOG, _integer(1, _SESSION_START), report.data["resumed_from_step"] + 1)
        elif isinstance(report, MetricsReport):
            summary = b"".join(
                _message(1, _message(1, f"{report.split}/{name}".encode()) + _float(2, value))
                for name, value in report.values.items()
                if value is not None
            )
            self._write(_SUMMARY, summary, report.step)

    def _write(self, field: int, content: bytes, step: int) -> None:
        if self._broken:
            return
        try:
            if self._file is None:
                self._directory.mkdir(parents=True, exist_ok=True)
                name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
                self._file = (self._directory / name).open("ab", buffering=0)  # a killed attempt leaves what it has
                self._file.write(_record(_double(1, time.time()) + _message(_VERSION, b"brain.Event:2")))
            self._file.write(_record(_double(1, time.time()) + _integer(2, step) + _message(field, content)))
        except OSError as error:
            self._broken = True
            logger.warning("no more TensorBoard files in %s: %s", self._directory, error)


def _record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + _checksum(length) + content + _checksum(content)


def _checksum(content: bytes) -> bytes:
    """CRC-32C, turned and shifted as TFRecord does."""
    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


# Fields of a protocol buffer: number and wire type, then the value.


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _float(number: int, value: float) -> bytes:
    with np.errstate(over="ignore"):  # past float32 it is infinite
        return _varint(number << 3 | 5) + np.float32(value).tobytes()


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _message(number: int, content: bytes) -> bytes:
    """Also a string."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    groups = []
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
