"""What each Ray Train worker runs."""

import logging

import ray.train

from service.spec.reports import Report
from workers.engine.config import WorkerConfig
from workers.engine.loop import TrainingRun
from workers.engine.parallel import Rank
from workers.errors import AttemptError

logger = logging.getLogger(__name__)


def train(config: WorkerConfig) -> AttemptError | None:
    """The train loop. A failure that a retry would only repeat is returned, not raised: Ray retries what is raised."""
    context = ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size())

    def tell(report: Report) -> None:
        config.mailbox.put.remote(report)

    try:
        TrainingRun(config.run, rank, tell).run()
    except AttemptError as error:
        logger.error("training stops: %s", error)
        return error
    return None
