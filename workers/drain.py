"""Whether this node is on its way out: a pod that is evicted, a machine that is taken back (`ray drain-node`).

Ray then places nothing new on the node, and ends it when nothing runs there any more.
"""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined] # as Ray Train and Serve ask; there is no public way
from ray.exceptions import RayError

from service.spec.reports import EventReport
from service.spec.stages import Stage
from workers.errors import Paused

logger = logging.getLogger(__name__)

_EVERY_S = 2.0
_TIMEOUT_S = 10


class DrainWatch:
    """Calls `leave` once if the node of this process is being drained, from a thread of its own, until the end of the
    block. Does nothing where the process belongs to no cluster."""

    def __init__(self, leave: Callable[[], object]) -> None:
        self._leave = leave
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        if ray.is_initialized():
            threading.Thread(target=self._watch, name="drain", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ended.set()

    def _watch(self) -> None:
        here = ray.get_runtime_context()
        node_id = here.get_node_id()
        while not self._ended.wait(_EVERY_S):
            try:
                draining = GcsClient(address=here.gcs_address).get_draining_nodes(timeout=_TIMEOUT_S)
            except RayError as error:  # the head is away; if it stays so, Ray ends this process
                logger.debug("the cluster does not say which nodes are drained: %s", error)
                continue
            if node_id in draining:
                logger.warning("this node is being drained")
                self._leave()
                return


def moves(paused: Paused) -> EventReport:
    """What the job is told when training has left a node that is drained."""
    message = f"The node that training was on is being drained: it goes on elsewhere, {paused}"
    return EventReport(type="train.moved", stage=Stage.TRAIN, message=message)
