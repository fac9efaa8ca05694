"""How a training worker's reports reach the attempt's driver, which numbers them and sends them on; and how the driver
asks the workers to pause."""

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from service.spec.reports import EventReport, Report
from workers.reporting import Reporter

_POLL_S = 1.0


class Mailbox:
    """A Ray actor. Any worker puts; the driver takes."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Report | None] = asyncio.Queue()
        self._pause = asyncio.Event()

    async def put(self, report: Report, _after: None) -> None:
        """_after: the answer to the `put` before; see `Sender`."""
        await self._queue.put(report)

    async def wake(self) -> None:
        """Let a `take` that waits return."""
        await self._queue.put(None)

    async def pause(self) -> None:
        """Let every `until_pause`, now and later, return."""
        self._pause.set()

    async def until_pause(self) -> None:
        await self._pause.wait()

    async def take(self, timeout_s: float) -> list[Report]:
        """All that has come, waiting up to `timeout_s` for the first."""
        try:
            found = [await asyncio.wait_for(self._queue.get(), timeout_s)]
        except TimeoutError:
            return []
        while not self._queue.empty():
            found.append(self._queue.get_nowait())
        return [report for report in found if report is not None]


class Sender:
    """A worker's end of a mailbox. Waits for nothing, and keeps the order, which an asynchronous actor does not: each
    call has the answer to the one before it as an argument, so Ray sends it after that."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._last: Any = None

    def tell(self, report: Report) -> None:
        self._last = self._mailbox.put.remote(report, self._last)

    def flush(self) -> None:
        """Return when all that was told is in the mailbox; a worker's end would cut off what is on its way."""
        if self._last is not None:
            ray.get(self._last)


class Forwarder:
    """Starts a Mailbox beside the driver and forwards what comes, until the end of the block empties it."""

    def __init__(self, reporter: Reporter, also: Callable[[Report], None]) -> None:
        """also: called with every report as well, from the forwarder's thread; must not raise."""
        self._reporter = reporter
        self._also = also
        node_id = ray.get_runtime_context().get_node_id()
        self.mailbox: Any = (
            ray.remote(Mailbox)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False))
            .remote()
        )
        self.trains = threading.Event()  # the workers have begun, and will hear of a pause
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._forward, name="mailbox", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._closing.set()
        self.mailbox.wake.remote()
        self._thread.join()
        ray.kill(self.mailbox)

    def _forward(self) -> None:
        while True:
            closing = self._closing.is_set()  # read first: what was put before the block ended is still taken
            reports = ray.get(self.mailbox.take.remote(0.0 if closing else _POLL_S))
            for report in reports:
                self._reporter.put(report)
                if isinstance(report, EventReport) and report.type == "train.started":
                    self.trains.set()
                self._also(report)
            if closing and not reports:
                return
