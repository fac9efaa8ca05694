"""Checkpoints of a run: all that decides its later steps."""

from pathlib import Path

import torch

from workers.engine.trainer import Trainer

_FILE = "state.pt"


def save(directory: Path, trainer: Trainer, steps_done: int) -> None:
    """Write into an empty directory. Only what is trained is kept: frozen weights come from the model again."""
    torch.save(
        {
            "steps_done": steps_done,
            "parameters": {name: parameter.detach() for name, parameter in trainer.parameters.items()},
            "optimizer": trainer.optimizer.state_dict(),
        },
        directory / _FILE,
    )


def load(directory: Path, trainer: Trainer) -> int:
    """Put the state back; return how many steps were done."""
    state = torch.load(directory / _FILE, map_location="cpu", weights_only=True)
    with torch.no_grad():
        for name, parameter in trainer.parameters.items():
            parameter.copy_(state["parameters"][name])
    trainer.optimizer.load_state_dict(state["optimizer"])
    steps_done: int = state["steps_done"]
    return steps_done
