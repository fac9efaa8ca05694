"""How a training worker's reports reach the attempt's driver, which numbers them and sends them on; and how the driver
asks the workers to pause."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from service.spec.reports import EventReport, Report

logger = logging.getLogger(__name__)

_POLL_S = 1.0


class Mailbox:
    """A Ray actor. Any worker puts; the driver takes, again if an answer was lost."""

    def __init__(self) -> None:
        self._reports: deque[Report] = deque()
        self._let_go = 0  # of the reports that came before these
        self._changed = asyncio.Event()
        self._pause = asyncio.Event()

    async def put(self, report: Report, _after: None) -> None:
        """_after: the answer to the `put` before; see `Sender`."""
        self._add(report)

    async def wake(self) -> None:
        """Let a `take` that waits return."""
        self._changed.set()

    async def pause(self) -> None:
        """Let every `until_pause`, now and later, return."""
        self._pause.set()

    async def until_pause(self) -> None:
        await self._pause.wait()

    async def take(self, seen: int, timeout_s: float) -> list[Report]:
        """All that has come after the first `seen`, which are let go of, waiting up to `timeout_s` for the first."""
        while self._let_go < seen:
            self._reports.popleft()
            self._let_go += 1
        if not self._reports:
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), timeout_s)
        return list(self._reports)

    def _add(self, report: Report) -> None:
        self._reports.append(report)
        self._changed.set()


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
    """Forwards what comes into a mailbox, until the end of the block empties and ends it."""

    def __init__(self, mailbox: Any, forward: Callable[[Report], None]) -> None:
        """mailbox: handle of a `Mailbox`. forward: called with every report, from the forwarder's thread."""
        self.mailbox = mailbox
        self.trains = threading.Event()  # the workers have begun, and will hear of a pause
        self._forward = forward
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mailbox", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._closing.set()
        if isinstance(error, RayActorError):  # lost, or out of reach, perhaps for ever
            ray.kill(self.mailbox)
        self.mailbox.wake.remote()
        self._thread.join()
        ray.kill(self.mailbox)

    def _run(self) -> None:
        seen = 0
        while True:
            closing = self._closing.is_set()  # read first: what was put before the block ended is still taken
            try:
                reports = ray.get(self.mailbox.take.remote(seen, 0.0 if closing else _POLL_S))
            except ActorUnavailableError as error:
                logger.warning("the training worker cannot be reached, trying again: %s", error)
                time.sleep(_POLL_S)
                continue
            except RayActorError as error:  # of a worker that is its own mailbox; whoever waits for it hears of it too
                logger.warning("no more reports of a worker that is lost: %s", error)
                return
            for report in reports:
                self._forward(report)
                if isinstance(report, EventReport) and report.type == "train.started":
                    self.trains.set()
            seen += len(reports)
            if closing and not reports:
                return


def beside_the_driver() -> Any:
    """Handle of a new mailbox on this node."""
    node_id = ray.get_runtime_context().get_node_id()
    return (
        ray.remote(Mailbox)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False))
        .remote()
    )
