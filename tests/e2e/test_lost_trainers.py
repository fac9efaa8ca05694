"""A training worker that dies before its group has begun. On Ray, without the service."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.spec import AlignmentJob, Resources
from service.spec.pools import Pool
from tests.e2e.one_pool import actors_of, one_node
from tests.models import make_model
from tests.workers.training_runs import make_job, make_run
from workers.engine.config import WorkerConfig
from workers.errors import AttemptError
from workers.group import train_group
from workers.mailbox import beside_the_driver


@pytest.fixture(scope="module", autouse=True)
def _pool() -> Iterator[None]:
    with one_node(Pool.POLICY):
        yield


@contextmanager
def first_worker_killed() -> Iterator[list[int]]:
    """As soon as there is one: it has yet to import torch. Yields the process IDs of those that were."""
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while not killed and not ended.is_set():
            for pid in actors_of("RayTrainWorker")[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield killed
    finally:
        ended.set()
        killer.join()


def two_workers(max_failures: int) -> AlignmentJob:
    resources = Resources.model_validate({"policy": {"workers": 2}, "max_failures": max_failures})
    return make_job().model_copy(update={"resources": resources})


def test_a_group_that_loses_a_worker_while_it_starts_is_started_again(tmp_path: Path) -> None:
    config = make_run(tmp_path / "run", make_model(tmp_path / "model"), two_workers(max_failures=1))
    with first_worker_killed() as killed:
        train_group(WorkerConfig(config, beside_the_driver()), 0.0, tmp_path / "train")
    assert killed
    assert (config.export / "model.safetensors").exists()


def test_past_max_failures_the_loss_is_told(tmp_path: Path) -> None:
    config = make_run(tmp_path / "run", make_model(tmp_path / "model"), two_workers(max_failures=0))
    with first_worker_killed(), pytest.raises(AttemptError, match="Training workers failed") as error:
        train_group(WorkerConfig(config, beside_the_driver()), 0.0, tmp_path / "train")
    assert error.value.code == "training_workers_failed"
