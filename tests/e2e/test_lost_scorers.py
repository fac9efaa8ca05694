"""Scorers of the reference pool that die: others take over their pairs, up to a limit. On Ray, without the service."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from service.spec import Precision, Resources
from service.spec.rows import Row
from tests.encoding import RowEncoder
from tests.models import make_model, make_tokenizer
from workers.data.example_file import ExampleFile, write_examples
from workers.errors import AttemptError
from workers.reference import passes
from workers.reference.actor import ScorerConfig
from workers.reference.store import ReferenceStore
from workers.sources import Weights

PAIRS = 64  # four windows of a worker that has not shown its speed


@pytest.fixture(scope="module")
def _pool() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_ADDRESS", raising=False)
        node = {"num_cpus": 2, "labels": {"pool": "reference"}, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        ray.init(address=cluster.address, log_to_driver=False)
        yield
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ScorerConfig:
    directory = tmp_path_factory.mktemp("lost")
    encode = RowEncoder(make_tokenizer(), max_length=512)
    rows = [Row(i, f"What is {i}? ", (f"It is {i}. ", "No.")) for i in range(PAIRS)]
    write_examples(directory / "examples", (encode(row) for row in rows))
    model = make_model(directory / "model")
    return ScorerConfig(Weights(model), directory / "examples", directory, "n", Precision.FLOAT32, batch_tokens=1024)


def score(config: ScorerConfig, max_failures: int, on_scored: Callable[[int], None]) -> int:
    """Returns how many scorers became ready."""
    ready: list[str] = []
    resources = Resources.model_validate({"reference": {"workers": 1}, "max_failures": max_failures})
    passes.run(config, range(PAIRS), resources, 0.0, [], ready.append, on_scored, threading.Event())
    return len(ready)


def kill_scorer(_scored: int) -> None:
    titles = {process.pid: " ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)}
    (scorer,) = [pid for pid, title in titles.items() if title.startswith("ray::Scorer")]
    os.kill(scorer, signal.SIGKILL)


@pytest.mark.usefixtures("_pool")
def test_the_pairs_of_a_lost_scorer_are_scored_by_another(config: ScorerConfig, tmp_path: Path) -> None:
    config = replace(config, store_root=tmp_path)
    counts: list[int] = []

    def after_shard(scored: int) -> None:
        counts.append(scored)
        if len(counts) == 1:
            kill_scorer(scored)

    assert score(config, 1, after_shard) == 2
    assert counts[-1] == PAIRS
    keys = [example.key for example in ExampleFile(config.examples)]
    reader = ReferenceStore(config.store_root, config.namespace).reader(keys)
    reader.refresh()
    assert not reader.missing()


@pytest.mark.usefixtures("_pool")
def test_past_max_failures_the_loss_of_a_scorer_is_told(config: ScorerConfig, tmp_path: Path) -> None:
    with pytest.raises(AttemptError) as error:
        score(replace(config, store_root=tmp_path), 0, kill_scorer)
    assert error.value.code == "reference_workers_lost"
