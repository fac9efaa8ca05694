"""A run that is killed at any moment goes on as if nothing had happened: every later loss is the same to the bit."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from service.spec.reports import MetricsReport, Report
from tests.workers.training_runs import STEPS, Steps, make_job, make_run, metrics_of, trained
from workers.data.example_file import ExampleFile
from workers.data.order import TrainingOrder
from workers.engine import checkpoint
from workers.engine.accumulate import Accumulator
from workers.engine.batching import Batch
from workers.engine.checkpoint import Checkpoints
from workers.engine.config import RunConfig
from workers.engine.logprobs import TokenStats
from workers.engine.loop import TrainingRun
from workers.engine.parallel import Rank
from workers.engine.trainer import Trainer
from workers.reference import handover
from workers.reference.handover import PassState, write_state
from workers.reference.store import ReferenceStore

MOMENTS = {"in the middle of gradient accumulation": 3, "during a save": 3, "after a step": 6, "before any save": 0}
HALF_SCORED = {"waiting for scores": 4, "in the middle of the last step that has scores": 3}  # steps from 0
OTHERS: dict[str, dict[str, Any]] = {
    "lora with dropout": {"method": {"type": "lora", "rank": 4, "dropout": 0.2}},
    "a loss with a memory": {"losses": [{"type": "bco_pair", "reward_baseline": "running_mean"}]},
    "a reference that follows": {"reference_sync": {"alpha": 0.6, "every": 2}},
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_first() -> None:
    """Let the run wait for its checkpoints, which are otherwise written beside it: the test says which one is there."""
    save = Checkpoints.save

    def save_and_wait(self: Checkpoints, *args: Any) -> None:
        save(self, *args)
        self.wait()

    Checkpoints.save = save_and_wait  # type: ignore[method-assign]


def set_trap(moment: str) -> None:
    """In the process that is to die: the real run, until it gets there."""
    if moment == "during a save":
        save, saves = checkpoint.save, 0

        def save_until(*args: Any, **kwargs: Any) -> None:
            nonlocal saves
            save(*args, **kwargs)
            saves += 1
            if saves == 2:  # the first stays; of the second all files are there, but it has not its name
                os.truncate(next(kwargs["checkpoint_id"].glob("*.distcp")), 100)
                die()

        checkpoint.save = save_until  # type: ignore[assignment]
    elif moment == "waiting for scores":
        write_first()
        handover.time.sleep = lambda _: die()  # type: ignore[attr-defined] # the module is imported there, not offered
    elif "in the middle of" in moment:
        write_first()
        forward, step = Accumulator._policy, Trainer.step
        at: dict[str, int] = {"step": 0, "batch": 0}

        def step_until(self: Trainer, number: int, *args: Any) -> dict[str, float]:
            at.update(step=number, batch=0)
            return step(self, number, *args)

        def forward_until(self: Accumulator, batch: Batch) -> TokenStats:
            at["batch"] += 1
            if at["step"] == HALF_SCORED.get(moment, 4) and at["batch"] == 2:
                die()
            return forward(self, batch)

        Trainer.step = step_until  # type: ignore[method-assign]
        Accumulator._policy = forward_until  # type: ignore[method-assign]
    else:
        write_first()
        step, dies_at = Trainer.step, 7 if moment == "after a step" else 1

        def step_then(self: Trainer, number: int, *args: Any) -> dict[str, float]:
            metrics = step(self, number, *args)
            if number == dies_at:
                die()
            return metrics

        Trainer.step = step_then  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> dict[str, tuple[RunConfig, Steps]]:
    """The uninterrupted ones."""
    torch.set_num_threads(1)
    found = {}
    for name, options in [("full", {}), *OTHERS.items()]:
        config = make_run(tmp_path_factory.mktemp("whole") / "run", model_path, make_job(**options))
        found[name] = config, trained(config)
    return found


@pytest.mark.parametrize(
    ("name", "moment"),
    [*(("full", moment) for moment in MOMENTS), *((name, "in the middle of gradient accumulation") for name in OTHERS)],
)
def test_a_killed_run_goes_on_with_the_same_losses_to_the_bit(
    name: str, moment: str, runs: dict[str, tuple[RunConfig, Steps]], tmp_path: Path
) -> None:
    config, whole = runs[name]
    config = replace(config, checkpoints=tmp_path / "checkpoints", export=tmp_path / "export")
    run_until_killed(config, moment, tmp_path)
    again = trained(config)
    assert again == {step: whole[step] for step in range(MOMENTS[moment] + 1, STEPS + 1)}
    assert not list(config.checkpoints.glob(".step-*"))


@pytest.mark.parametrize("moment", HALF_SCORED)
def test_so_does_one_that_is_killed_while_the_reference_pass_still_runs(
    moment: str, model_path: Path, tmp_path: Path
) -> None:
    finished = make_run(tmp_path / "whole", model_path, make_job(batch_size=2, micro_batch_tokens=64))
    whole = trained(finished)
    examples = ExampleFile(finished.examples)
    assert finished.store_root
    reader = ReferenceStore(finished.store_root, "").reader([one.key for one in examples])
    reader.refresh()
    unscored = TrainingOrder(finished.job, examples.rows).first_visits().tolist()
    config = replace(
        finished,
        store_root=tmp_path / "store",
        pass_state=tmp_path / "state",
        checkpoints=tmp_path / "checkpoints",
        export=tmp_path / "export",
    )

    def score(count: int) -> None:
        """What the scorers do, whom nobody has killed."""
        keys = [examples[i].key for i in unscored[:count]]
        del unscored[:count]
        ReferenceStore(tmp_path / "store", "").commit((key, reader.scores[key]) for key in keys)
        write_state(tmp_path / "state", PassState.RUNNING if unscored else PassState.COMPLETE)

    score(8)  # what four steps need
    run_until_killed(config, moment, tmp_path)
    told: list[Report] = []

    def tell(report: Report) -> None:
        told.append(report)
        if isinstance(report, MetricsReport) and unscored:
            score(2)

    TrainingRun(config, Rank(), tell).run()
    assert metrics_of(told) == {step: whole[step] for step in range(4, STEPS + 1)}
    assert not unscored


def run_until_killed(config: RunConfig, moment: str, directory: Path) -> None:
    torch.save(config, directory / "config.pt")
    died = subprocess.run(
        [sys.executable, "-m", "tests.workers.test_killed_runs", str(directory / "config.pt"), moment],
        capture_output=True,
        text=True,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not config.export.exists()


if __name__ == "__main__":
    set_trap(sys.argv[2])
    trained(torch.load(sys.argv[1], weights_only=False))
