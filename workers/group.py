"""Training by several workers: one Ray Train run on the policy pool."""

import logging
import os
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, Result, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.exceptions import InsufficientClusterResourcesError, WorkerGroupStartupTimeoutError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from service.spec.pools import Pool
from service.spec.reports import Fault
from workers.engine.config import WorkerConfig
from workers.errors import AttemptError, Paused, not_placed

logger = logging.getLogger(__name__)

_NOT_PLACED = (WorkerGroupStartupTimeoutError, InsufficientClusterResourcesError)


def train_group(config: WorkerConfig, gpus_per_worker: float, run_dir: Path) -> None:
    """Train to the end, or raise AttemptError or Paused. What was cut off goes on from the run's checkpoints, which are
    the engine's own: Ray only starts workers, and starts them again, up to `resources.max_failures` times; as often,
    the group if it is lost before all its workers have begun."""
    resources = config.run.job.resources
    lost = 0
    while True:
        try:
            result = _fit(config, gpus_per_worker, run_dir)
            break
        except WorkerGroupError as error:
            causes = "; ".join(f"worker {rank}: {cause}" for rank, cause in sorted(error.worker_failures.items()))
            raise AttemptError("training_workers_failed", f"Training workers failed: {causes}", Fault.SYSTEM) from error
        except ControllerError as error:
            if isinstance(error.controller_failure, _NOT_PLACED):
                raise not_placed(resources, gpus_per_worker, str(error)) from error
            lost += 1
            if lost > resources.max_failures:
                raise AttemptError(
                    "training_workers_failed", f"Training workers failed while they started: {error}", Fault.SYSTEM
                ) from error
            logger.warning("a training worker was lost while the group started, which starts again: %s", error)
    if isinstance(result.return_value, AttemptError | Paused):
        raise result.return_value


def _fit(config: WorkerConfig, gpus_per_worker: float, run_dir: Path) -> Result:
    resources = config.run.job.resources
    # Read by Ray Train's controller. Without a limit it would ask for an impossible placement for ever.
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(resources.start_timeout_s)
    trainer = TorchTrainer(
        _train_loop,
        train_loop_config={"worker": config},
        torch_config=TorchConfig(backend="nccl" if gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=resources.policy.workers,
            use_gpu=gpus_per_worker > 0,
            resources_per_worker={"CPU": resources.policy.cpus_per_worker, "GPU": gpus_per_worker},
            label_selector=Pool.POLICY.selector,
        ),
        run_config=RunConfig(
            name="train",
            storage_path=str(run_dir),
            # Ray counts a group that was lost as it started together with one that found no place
            failure_config=FailureConfig(max_failures=resources.max_failures, controller_failure_limit=0),
        ),
    )
    return trainer.fit()


def _train_loop(loop_config: dict[str, Any]) -> AttemptError | Paused | None:
    from workers.engine.worker import train  # here, so that the driver and Ray's controller do without

    return train(loop_config["worker"])
