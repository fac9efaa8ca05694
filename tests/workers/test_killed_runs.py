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

from tests.workers.training_runs import STEPS, Steps, make_job, make_run, trained
from workers.engine import checkpoint
from workers.engine.accumulate import Accumulator
from workers.engine.batching import Batch
from workers.engine.checkpoint import Checkpoints
from workers.engine.config import RunConfig
from workers.engine.logprobs import TokenStats
from workers.engine.trainer import Trainer

MOMENTS = {"in the middle of gradient accumulation": 3, "during a save": 3, "after a step": 6, "before any save": 0}
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
    elif moment == "in the middle of gradient accumulation":
        write_first()
        forward, step = Accumulator._policy, Trainer.step
        at: dict[str, int] = {"step": 0, "batch": 0}

        def step_until(self: Trainer, number: int, *args: Any) -> dict[str, float]:
            at.update(step=number, batch=0)
            return step(self, number, *args)

        def forward_until(self: Accumulator, batch: Batch) -> TokenStats:
            at["batch"] += 1
            if at["step"] == 4 and at["batch"] == 2:
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
    torch.save(config, tmp_path / "config.pt")
    died = subprocess.run(
        [sys.executable, "-m", "tests.workers.test_killed_runs", str(tmp_path / "config.pt"), moment],
        capture_output=True,
        text=True,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not config.export.exists()

    again = trained(config)
    assert again == {step: whole[step] for step in range(MOMENTS[moment] + 1, STEPS + 1)}
    assert not list(config.checkpoints.glob(".step-*"))


if __name__ == "__main__":
    set_trap(sys.argv[2])
    trained(torch.load(sys.argv[1], weights_only=False))
