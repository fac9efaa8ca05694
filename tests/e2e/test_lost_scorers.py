"""Scorers of the reference pool that die or fail: others take over, up to a limit. On Ray, without the service."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.spec import Precision, Resources
from service.spec.pools import Pool
from service.spec.reports import Fault
from service.spec.rows import Row
from tests.e2e.one_pool import actors_of, one_node
from tests.encoding import RowEncoder
from tests.models import make_model, make_tokenizer
from workers.data.example_file import ExampleFile, write_examples
from workers.errors import AttemptError
from workers.reference import passes
from workers.reference.actor import ScorerConfig
from workers.reference.store import ReferenceStore
from workers.sources import Weights

TIMEOUT_S = 60
PAIRS = 64  # four windows of a worker that has not shown its speed


@pytest.fixture(scope="module")
def pool() -> Iterator[Callable[[], None]]:
    """One node, which the call takes away."""
    with one_node(Pool.REFERENCE) as take_away:
        yield take_away


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ScorerConfig:
    directory = tmp_path_factory.mktemp("lost")
    encode = RowEncoder(make_tokenizer(), max_length=512)
    rows = [Row(i, f"What is {i}? ", (f"It is {i}. ", "No.")) for i in range(PAIRS)]
    write_examples(directory / "examples", (encode(row) for row in rows))
    model = make_model(directory / "model")
    return ScorerConfig(Weights(model), directory / "examples", directory, "n", Precision.FLOAT32, batch_tokens=1024)


def score(
    config: ScorerConfig,
    max_failures: int,
    on_scored: Callable[[int], None],
    on_ready: Callable[[int], None] = lambda _count: None,
) -> int:
    """on_ready: called with how many scorers became ready; returns their number."""
    ready: list[str] = []

    def count(paths: str) -> None:
        ready.append(paths)
        on_ready(len(ready))

    asked = {"reference": {"workers": 1}, "max_failures": max_failures, "start_timeout_s": TIMEOUT_S}
    resources = Resources.model_validate(asked)
    passes.run(config, range(PAIRS), resources, 0.0, [], count, on_scored, threading.Event())
    return len(ready)


def kill_scorer(_scored: int) -> None:
    (scorer,) = actors_of("Scorer")
    os.kill(scorer, signal.SIGKILL)


@pytest.mark.usefixtures("pool")
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


@pytest.mark.usefixtures("pool")
def test_past_max_failures_the_loss_of_a_scorer_is_told(config: ScorerConfig, tmp_path: Path) -> None:
    with pytest.raises(AttemptError) as error:
        score(replace(config, store_root=tmp_path), 0, kill_scorer)
    assert error.value.code == "reference_workers_lost"


@pytest.mark.usefixtures("pool")
def test_the_pairs_on_which_a_scorer_fails_are_scored_by_another(config: ScorerConfig, tmp_path: Path) -> None:
    late = replace(config, store_root=tmp_path, examples=tmp_path / "examples")
    counts: list[int] = []

    def on_ready(count: int) -> None:
        if count == 2:
            late.examples.symlink_to(config.examples)  # which the first one did not find

    assert score(late, 1, counts.append, on_ready) == 2
    assert counts[-1] == PAIRS


@pytest.mark.usefixtures("pool")
def test_past_max_failures_what_scorers_raise_is_told(config: ScorerConfig, tmp_path: Path) -> None:
    with pytest.raises(AttemptError, match="1 reference workers failed; the last: FileNotFoundError") as error:
        score(replace(config, store_root=tmp_path, examples=tmp_path / "none"), 0, lambda _: None)
    assert error.value.code == "reference_workers_failed"


@pytest.mark.usefixtures("pool")
def test_a_model_that_no_scorer_can_load_is_told_at_once(config: ScorerConfig, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    (model / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(AttemptError) as error:
        score(replace(config, store_root=tmp_path, weights=Weights(model)), 3, lambda _: None)
    assert (error.value.code, error.value.fault) == ("model_unusable", Fault.USER)


def test_a_lost_scorer_that_finds_no_place_again_ends_the_pass(
    config: ScorerConfig, tmp_path: Path, pool: Callable[[], None]
) -> None:
    """The last one here: it takes the node away."""
    with pytest.raises(AttemptError, match=f"No reference worker was ready within {TIMEOUT_S} s") as error:
        score(replace(config, store_root=tmp_path), 3, lambda _: pool())
    assert error.value.code == "pool_unavailable"
