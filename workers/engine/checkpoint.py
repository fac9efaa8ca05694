"""Checkpoints of a run: all that decides its later steps."""

from pathlib import Path

import torch

from workers.engine.trainer import Trainer
from workers.health import HealthMonitor, HealthState
from workers.losses import RunningMean

_FILE = "state.pt"


def save(directory: Path, trainer: Trainer, health: HealthMonitor, steps_done: int) -> None:
    """Write into an empty directory. Only what is trained is kept: frozen weights come from the model again."""
    torch.save(
        {
            "steps_done": steps_done,
            "parameters": {name: parameter.detach() for name, parameter in trainer.parameters.items()},
            "optimizer": trainer.optimizer.state_dict(),
            "reference": trainer.live_reference.parameters if trainer.live_reference else {},
            "health": health.state,
            "baselines": {str(kind): (one.mean, one.weight) for kind, one in trainer.baselines.items()},
        },
        directory / _FILE,
    )


def load(directory: Path, trainer: Trainer) -> tuple[int, HealthState]:
    """Put the trainer's state back; return how many steps were done, and what the health monitor had seen."""
    state = torch.load(directory / _FILE, map_location="cpu", weights_only=True)
    with torch.no_grad():
        for name, parameter in trainer.parameters.items():
            parameter.copy_(state["parameters"][name])
        if trainer.live_reference:
            for name, parameter in trainer.live_reference.parameters.items():
                parameter.copy_(state["reference"][name])
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.baselines = {kind: RunningMean(*one) for kind, one in state["baselines"].items()}
    return state["steps_done"], state["health"]
