"""Training beside the reference pass is training after it: the same losses to the bit, whenever the scores land. And so
is what goes on from a checkpoint. On every kind of model."""

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from service.spec.reports import EventReport, MetricsReport, Report
from tests.models import make_model
from tests.workers.test_pause import scored_for
from tests.workers.test_shared_prompt import ARCHITECTURES
from tests.workers.training_runs import STEPS, make_job, make_run, metrics_of, trained
from workers.data.example_file import ExampleFile
from workers.data.order import TrainingOrder
from workers.engine.loop import TrainingRun
from workers.engine.parallel import Rank
from workers.errors import AttemptError
from workers.reference.handover import PassState, write_state
from workers.reference.store import ReferenceStore


def wait_until(is_so: Callable[[], bool]) -> None:
    """For a minute at most: the test's own assertions say what is missing then."""
    deadline = time.monotonic() + 60
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral with a window", "gemma2", "gpt2"])
def test_scores_that_land_one_shard_at_a_time_give_the_losses_of_a_finished_pass(name: str, tmp_path: Path) -> None:
    kind, sizes = ARCHITECTURES[name]
    model = make_model(tmp_path / "model", kind, **sizes | {"vocab_size": 400})
    config = make_run(tmp_path / "run", model, make_job())
    expected = trained(config)
    assert config.store_root
    examples = ExampleFile(config.examples)
    reader = ReferenceStore(config.store_root, "").reader([one.key for one in examples])
    reader.refresh()
    visits = TrainingOrder(config.job, examples.rows).first_visits().tolist()
    late = replace(
        config,
        store_root=tmp_path / "late",
        pass_state=tmp_path / "late.state",
        checkpoints=tmp_path / "checkpoints",
        export=tmp_path / "export",
    )
    write_state(tmp_path / "late.state", PassState.RUNNING)
    told: list[Report] = []
    told_before_the_last_shard = 0

    def score() -> None:
        nonlocal told_before_the_last_shard
        for start in range(0, len(visits), 3):
            time.sleep(0.3)
            if start == 0:
                wait_until(lambda: run._feed is not None and run._feed._waits_since is not None)
            if start + 3 >= len(visits):
                wait_until(lambda: len(metrics_of(told)) > 0)  # not by the clock: the first step may take its time
                told_before_the_last_shard = len(metrics_of(told))
            keys = [examples[i].key for i in visits[start : start + 3]]
            ReferenceStore(tmp_path / "late", "").commit((key, reader.scores[key]) for key in keys)
        write_state(tmp_path / "late.state", PassState.COMPLETE)

    scorer = threading.Thread(target=score)
    torch.set_num_threads(1)
    run = TrainingRun(late, Rank(), told.append)
    scorer.start()
    run.run()
    scorer.join()
    assert metrics_of(told) == expected
    assert told_before_the_last_shard > 0  # it had begun
    waits = [one.values["policy_wait_s"] for one in told if isinstance(one, MetricsReport) and one.split == "train"]
    assert waits[0] > 0
    assert waits[-1] == pytest.approx(0, abs=0.1)  # all were there by then

    resumed = replace(config, checkpoints=tmp_path / "resumed", export=tmp_path / "again")
    shutil.copytree(late.checkpoints / "step-00000003", resumed.checkpoints / "step-00000003")
    assert trained(resumed) == {step: expected[step] for step in range(4, STEPS + 1)}


def test_a_wait_for_held_out_pairs_is_told_with_their_measure(model_path: Path, tmp_path: Path) -> None:
    config = make_run(tmp_path / "run", model_path, make_job())
    late = scored_for(config, tmp_path / "late", STEPS)
    told: list[Report] = []

    def score_the_rest() -> None:
        while len(metrics_of(told)) < STEPS:
            time.sleep(0.01)
        wait_until(lambda: run._feed is not None and run._feed._waits_since is not None)
        time.sleep(0.3)
        assert config.store_root
        assert late.store_root
        reader = ReferenceStore(config.store_root, "").reader([one.key for one in ExampleFile(config.examples)])
        reader.refresh()
        ReferenceStore(late.store_root, "").commit(reader.scores.items())
        assert late.pass_state
        write_state(late.pass_state, PassState.COMPLETE)

    scorer = threading.Thread(target=score_the_rest)
    run = TrainingRun(late, Rank(), told.append)
    scorer.start()
    run.run()
    scorer.join()
    (held_out,) = [one for one in told if isinstance(one, MetricsReport) and one.split == "held_out"]
    assert (held_out.values["policy_wait_s"] or 0) > 0.2


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("llama", "packed rows with shared prompts, attention by SDPA for each segment, head in chunks"),
        (
            "gemma2",  # it caps its scores and its logits
            "packed rows with shared prompts, attention by products for each segment, head in chunks",
        ),
        (
            "bloom",
            "padded rows (not packed: it does not go through transformers' attention interface), "
            "attention by the model's own code (eager), head in chunks",
        ),
    ],
)
def test_an_event_says_which_way_a_model_takes(name: str, path: str, tmp_path: Path) -> None:
    kind, sizes = ARCHITECTURES[name]
    model = make_model(tmp_path / "model", kind, **sizes | {"vocab_size": 400})
    told: list[Report] = []
    TrainingRun(make_run(tmp_path / "run", model, make_job()), Rank(), told.append)
    (started,) = [one for one in told if isinstance(one, EventReport) and one.type == "train.started"]
    assert started.message.endswith(path)
    assert started.data["shares_prompts"] == path.startswith("packed")
    assert started.data["head_apart"]
    assert started.data["head_apart_refused"] is None
    assert (f"not packed: {started.data['sharing_refused']})" in path) == (name == "bloom")
    assert f"attention by {started.data['attention']}, " in path


def test_training_does_not_wait_for_a_pass_that_failed(model_path: Path, tmp_path: Path) -> None:
    config = make_run(tmp_path / "run", model_path, make_job())
    write_state(tmp_path / "failed", PassState.FAILED)
    cut_off = replace(config, store_root=tmp_path / "empty", pass_state=tmp_path / "failed")
    with pytest.raises(AttemptError) as error:
        trained(cut_off)
    assert error.value.code == "reference_incomplete"
