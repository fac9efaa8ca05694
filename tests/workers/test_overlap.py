"""Training beside the reference pass is training after it: the same losses to the bit, whenever the scores land."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from service.spec.reports import MetricsReport, Report
from tests.workers.training_runs import make_job, make_run, metrics_of, trained
from workers.data.example_file import ExampleFile
from workers.data.order import TrainingOrder
from workers.engine.loop import TrainingRun
from workers.engine.parallel import Rank
from workers.errors import AttemptError
from workers.reference.handover import PassState, write_state
from workers.reference.store import ReferenceStore


def test_scores_that_land_one_shard_at_a_time_give_the_losses_of_a_finished_pass(
    model_path: Path, tmp_path: Path
) -> None:
    config = make_run(tmp_path / "run", model_path, make_job())
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
            if start + 3 >= len(visits):
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


def test_training_does_not_wait_for_a_pass_that_failed(model_path: Path, tmp_path: Path) -> None:
    config = make_run(tmp_path / "run", model_path, make_job())
    write_state(tmp_path / "failed", PassState.FAILED)
    cut_off = replace(config, store_root=tmp_path / "empty", pass_state=tmp_path / "failed")
    with pytest.raises(AttemptError) as error:
        trained(cut_off)
    assert error.value.code == "reference_incomplete"
