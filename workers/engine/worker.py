"""What each Ray Train worker runs."""

import logging
from datetime import timedelta

import ray.train
from torch import distributed

from service.spec.reports import Report
from workers.device import hide_other_gpus
from workers.engine.config import WorkerConfig
from workers.engine.loop import TrainingRun
from workers.engine.parallel import Rank
from workers.errors import AttemptError

_STOP_TIMEOUT = timedelta(seconds=30)

logger = logging.getLogger(__name__)


def train(config: WorkerConfig) -> AttemptError | None:
    """The train loop. A failure that a retry would only repeat is returned, not raised: Ray retries what is raised."""
    context = ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size())

    def tell(report: Report) -> None:
        config.mailbox.put.remote(report)

    hide_other_gpus()
    together = distributed.new_group(backend="gloo") if rank.count > 1 else None
    try:
        TrainingRun(config.run, rank, tell).run()
    except AttemptError as error:
        logger.error("training stops: %s", error)
        if together and not _all_stop(together):
            raise  # the others wait for this worker: Ray must end them
        # Its frames hold the model: a DDP module that Ray's end of the process group finds alive can hang the worker.
        return error.with_traceback(None)
    return None


def _all_stop(group: distributed.ProcessGroup) -> bool:
    """Whether every worker met an error and came here."""
    try:
        distributed.monitored_barrier(group, timeout=_STOP_TIMEOUT)
    except RuntimeError:
        return False
    return True
