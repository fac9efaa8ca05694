"""What each Ray Train worker runs."""

import logging
from datetime import timedelta

import ray
import ray.train
from torch import distributed

from workers.device import hide_other_gpus
from workers.drain import DrainWatch
from workers.engine.config import WorkerConfig
from workers.engine.loop import TrainingRun
from workers.engine.parallel import Rank
from workers.errors import AttemptError, Paused
from workers.logs import configure
from workers.mailbox import Sender

_STOP_TIMEOUT = timedelta(seconds=30)

logger = logging.getLogger(__name__)


def train(config: WorkerConfig) -> AttemptError | Paused | None:
    """The train loop. A failure that a retry would only repeat is returned, not raised: Ray retries what is raised. So
    is a pause, for which all workers stop at the same step."""
    configure(config.run.attempt_id)
    context = ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size())

    sender = Sender(config.mailbox)
    pause = config.mailbox.until_pause.remote()
    hide_other_gpus()
    together = distributed.new_group(backend="gloo") if rank.count > 1 else None
    try:
        with DrainWatch(config.mailbox.pause.remote):  # of any worker's node: all of them stop together
            TrainingRun(config.run, rank, sender.tell, lambda: bool(ray.wait([pause], timeout=0)[0])).run()
        sender.flush()
    except Paused as paused:
        sender.flush()
        return paused.with_traceback(None)  # as below
    except AttemptError as error:
        logger.error("training stops: %s", error)
        if together and not _all_stop(together):
            raise  # the others wait for this worker: Ray must end them
        sender.flush()
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
