"""What a piece of work costs: seconds, CPU of this process and of PostgreSQL, statements, and the rows they gave."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Connection, Engine, event


@dataclass
class Cost:
    """database_cpu_s: of the server's processes; SQLite's is in `cpu_s`. rows: of PostgreSQL only."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    database_cpu_s: float = 0.0
    statements: int = 0
    rows: int = 0


class Meter:
    """Of all that this process asks of databases. server: PostgreSQL's first process, if there is one."""

    def __init__(self, server: psutil.Process | None) -> None:
        self._server = server
        self._cost: Cost | None = None
        event.listen(Engine, "after_cursor_execute", self._count)

    @contextmanager
    def measure(self) -> Iterator[Cost]:
        self._cost = cost = Cost()
        began = (time.perf_counter(), time.process_time(), self._server_cpu())
        yield cost
        self._cost = None
        ended = (time.perf_counter(), time.process_time(), self._server_cpu())
        cost.seconds, cost.cpu_s, cost.database_cpu_s = (b - a for a, b in zip(began, ended, strict=True))

    def _count(self, _connection: Connection, cursor: Any, _statement: str, *_: object) -> None:
        if self._cost is not None:
            self._cost.statements += 1
            self._cost.rows += max(0, cursor.rowcount)

    def _server_cpu(self) -> float:
        return server_cpu_s(self._server) if self._server is not None else 0.0


def server_cpu_s(server: psutil.Process) -> float:
    """Of all processes of a PostgreSQL server that are there."""
    used = server.cpu_times()
    total = used.user + used.system
    for child in server.children(recursive=True):
        try:
            used = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += used.user + used.system
    return total


def postgres_process() -> psutil.Process | None:
    """Of the server that `tests.databases.postgres` has started in this process."""
    children = psutil.Process().children()
    return next((child for child in children if Path(child.name()).name == "postgres"), None)
