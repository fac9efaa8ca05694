"""A run that is paused stops between two steps, and goes on as if it had not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from service.spec.reports import EventReport, Report
from tests.workers.training_runs import STEPS, make_job, make_run, metrics_of, on_workers, trained
from workers.data.example_file import ExampleFile
from workers.data.order import TrainingOrder
from workers.engine.config import RunConfig
from workers.engine.loop import TrainingRun
from workers.engine.parallel import Rank
from workers.errors import Paused
from workers.reference.handover import PassState, write_state
from workers.reference.store import ReferenceStore

EVERY = 3  # steps between checkpoints


def paused_before(config: RunConfig, step: int, rank: Rank | None = None) -> list[Report]:
    """Train until the first worker is asked to pause, when `step` steps are done."""
    torch.set_num_threads(1)
    reports: list[Report] = []
    rank = rank or Rank()

    def asked() -> bool:
        assert rank.index == 0, "only the first worker is asked"
        return len(metrics_of(reports)) == step

    with pytest.raises(Paused, match=f"after step {step}"):
        TrainingRun(config, rank, reports.append, asked).run()
    return reports


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (4, {}),
        (EVERY, {}),  # where a checkpoint has just been saved
        (5, {"method": {"type": "lora", "rank": 4, "dropout": 0.2}}),
        (5, {"reference_sync": {"alpha": 0.6, "every": 2}}),
    ],
)
def test_a_paused_run_goes_on_with_the_same_losses_to_the_bit(
    step: int, options: dict[str, Any], model_path: Path, tmp_path: Path
) -> None:
    job = make_job(checkpoint_every=EVERY, **options)
    whole = trained(make_run(tmp_path / "whole", model_path, job))
    config = make_run(tmp_path / "paused", model_path, job)
    first = metrics_of(paused_before(config, step))
    assert sorted(path.name for path in config.checkpoints.iterdir())[-1] == f"step-{step:08}"
    assert not config.export.exists()
    assert first | trained(config) == whole


def test_the_jobs_events_say_when_checkpoints_had_to_be_passed_over(model_path: Path, tmp_path: Path) -> None:
    config = make_run(tmp_path / "run", model_path, make_job(checkpoint_every=EVERY))
    expected = metrics_of(paused_before(config, 5))
    (config.checkpoints / "step-00000005" / "run.json").unlink()
    told: list[Report] = []
    run = TrainingRun(config, Rank(), told.append)
    passed_over, started = (one for one in told if isinstance(one, EventReport))
    assert passed_over.type == "checkpoint.unreadable"
    assert passed_over.message.startswith("Training goes back to the checkpoint after step 3, since what came later ")
    assert passed_over.data["step"] == started.data["resumed_from_step"] == EVERY
    (why,) = passed_over.data["unreadable"]
    assert why.startswith("step-00000005: run.json: FileNotFoundError")
    run.run()
    again = metrics_of(told)
    assert {step: again[step] for step in (4, 5)} == {step: expected[step] for step in (4, 5)}


def test_a_run_paused_before_its_first_step_leaves_nothing(model_path: Path, tmp_path: Path) -> None:
    config = make_run(tmp_path / "run", model_path, make_job())
    paused_before(config, 0)
    assert not config.checkpoints.exists()
    assert len(trained(config)) == STEPS


def scored_for(config: RunConfig, directory: Path, num_steps: int) -> RunConfig:
    """The same run while its reference pass has come as far as that."""
    examples = ExampleFile(config.examples)
    order = TrainingOrder(config.job, examples.rows)
    keys = {examples[i].key for step in range(num_steps) for i in order.step(step).tolist()}
    assert config.store_root
    reader = ReferenceStore(config.store_root, "").reader(keys)
    reader.refresh()
    ReferenceStore(directory / "store", "").commit((key, reader.scores[key]) for key in keys)
    write_state(directory / "state", PassState.RUNNING)
    return replace(config, store_root=directory / "store", pass_state=directory / "state")


def _paused_while_it_waits(rank: Rank, config: RunConfig, out: Path) -> None:
    torch.set_num_threads(1)
    reports: list[Report] = []
    looks = 0

    def asked() -> bool:
        nonlocal looks
        looks += len(metrics_of(reports)) == 2
        return looks > 3  # it has waited meanwhile

    with pytest.raises(Paused, match="after step 2"):
        TrainingRun(config, rank, reports.append, asked).run()
    if rank.index == 0:
        torch.save(metrics_of(reports), out)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_waits_for_scores_is_paused_too(workers: int, model_path: Path, tmp_path: Path) -> None:
    config = make_run(tmp_path / "run", model_path, make_job(checkpoint_every=EVERY))
    on_workers(
        workers, tmp_path, _paused_while_it_waits, scored_for(config, tmp_path / "late", 2), tmp_path / "told.pt"
    )
    steps = torch.load(tmp_path / "told.pt") | trained(config)
    alone = trained(replace(config, checkpoints=tmp_path / "checkpoints", export=tmp_path / "export"))
    assert list(steps) == list(alone)
    for step, metrics in alone.items():
        assert steps[step] == (metrics if workers == 1 else pytest.approx(metrics, rel=1e-4, abs=1e-4))


def _paused_while_it_waits_for_held_out_pairs(rank: Rank, config: RunConfig) -> None:
    torch.set_num_threads(1)
    reports: list[Report] = []
    looks = 0

    def asked() -> bool:
        nonlocal looks
        looks += len(metrics_of(reports)) == EVERY
        return looks > 2

    with pytest.raises(Paused, match=f"after step {EVERY}"):
        TrainingRun(config, rank, reports.append, asked).run()
    assert not metrics_of(reports, "held_out")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_waits_to_measure_held_out_pairs_is_paused_and_measures_them_later(
    workers: int, model_path: Path, tmp_path: Path
) -> None:
    job = make_job(checkpoint_every=EVERY)
    job = job.model_copy(update={"evaluation": job.evaluation.model_copy(update={"every": EVERY})})
    config = make_run(tmp_path / "run", model_path, job)
    late = scored_for(config, tmp_path / "late", EVERY)
    on_workers(workers, tmp_path, _paused_while_it_waits_for_held_out_pairs, late)
    told: list[Report] = []
    TrainingRun(config, Rank(), told.append).run()
    assert list(metrics_of(told)) == [4, 5, 6, 7, 8]
    assert list(metrics_of(told, "held_out")) == [3, 6, 8]
    whole: list[Report] = []
    TrainingRun(replace(config, checkpoints=tmp_path / "checkpoints"), Rank(), whole.append).run()
    for step, values in metrics_of(whole, "held_out").items():
        assert metrics_of(told, "held_out")[step] == pytest.approx(values, rel=1e-4, abs=1e-4)


def _both_pause(rank: Rank, config: RunConfig) -> None:
    if rank.index == 0:
        paused_before(config, 4, rank)
    else:
        with pytest.raises(Paused, match="after step 4"):
            TrainingRun(config, rank, lambda _: None, lambda: False).run()


def test_all_workers_pause_at_the_step_of_the_first(model_path: Path, tmp_path: Path) -> None:
    config = make_run(tmp_path / "run", model_path, make_job(checkpoint_every=EVERY))
    on_workers(2, tmp_path, _both_pause, config)
    assert (config.checkpoints / "step-00000004" / "run.json").exists()
    assert sorted(trained(config)) == [5, 6, 7, 8]
