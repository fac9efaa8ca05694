"""Checkpoints of a run: all that decides its later steps, written beside training and found again after a crash.

    {directory}/step-00000050/    each worker's slices in torch's distributed format, and run.json

A checkpoint is there when its directory has its name: all workers write into a hidden one, which the first renames once
everything is on the disk. So the newest one is always whole. Any number of workers, with whole copies or slices,
can go on from what any other number wrote.
"""

import json
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from service.spec.layout import step_name
from service.spec.losses import LossKind
from workers.durable import remove, sync
from workers.engine.parallel import Rank
from workers.engine.trainer import Trainer
from workers.health import HealthMonitor, HealthState
from workers.losses import RunningMean

State = dict[str, dict[str, Any]]

_RUN = "run.json"


class Checkpoints:
    """One worker's hand on the run's checkpoints."""

    def __init__(
        self, directory: Path, keep: int, rank: Rank, on_saved: Callable[[int], None] = lambda _: None
    ) -> None:
        """keep: how many of the newest stay. on_saved: called on the first worker with the number of steps done, from
        another thread, when a checkpoint is on the disk."""
        self._directory = directory
        self._keep = keep
        self._rank = rank
        self._on_saved = on_saved
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        # of its own, since writing speaks while training does
        self._group = distributed.new_group(backend="gloo") if rank.count > 1 else None
        # a worker of an attempt that was given up may still write: never into the same directory
        self._token: str = self._as_first(uuid.uuid4().hex)

    def save(self, trainer: Trainer, health: HealthMonitor, steps_done: int) -> None:
        """Copy the state and write it while training goes on; waits for the checkpoint before it, if that is still
        being written, and raises what went wrong there. All workers call it."""
        self.wait()
        run = {
            "steps_done": steps_done,
            "health": health.state,
            "baselines": {str(kind): (one.mean, one.weight) for kind, one in trainer.baselines.items()},
        }
        self._pending = self._writer.submit(self._write, _copy(_state(trainer)), json.dumps(run), steps_done)

    def wait(self) -> None:
        """Until nothing is being written."""
        if self._pending:
            pending, self._pending = self._pending, None
            pending.result()

    def load_newest(self, trainer: Trainer) -> tuple[int, HealthState | None]:
        """Put the trainer's state back; return how many steps were done, and what the health monitor had seen: 0 and
        None where no checkpoint is. All workers call it."""
        if self._rank.index == 0:
            for torn in self._directory.glob(".step-*"):
                shutil.rmtree(torn, ignore_errors=True)
        saved = self._saved()
        newest: str | None = self._as_first(saved[-1].name if saved else None)
        if newest is None:
            return 0, None
        directory = self._directory / newest
        load(_state(trainer), checkpoint_id=directory, process_group=self._group, no_dist=not self._group)
        run = json.loads((directory / _RUN).read_text())
        trainer.baselines = {LossKind(kind): RunningMean(*one) for kind, one in run["baselines"].items()}
        return run["steps_done"], run["health"]

    def _saved(self) -> list[Path]:
        return sorted(self._directory.glob("step-*"))

    def _as_first(self, value: Any) -> Any:
        """What the first worker has, whatever this one sees."""
        found = [value]
        if self._group:
            distributed.broadcast_object_list(found, src=0, group=self._group)
        return found[0]

    def _write(self, state: State, run: str, steps_done: int) -> None:
        target = self._directory / step_name(steps_done)
        temporary = target.with_name(f".{target.name}-{self._token}")
        if self._rank.index == 0:
            temporary.mkdir(parents=True)
            (temporary / _RUN).write_text(run)
        if self._group:
            distributed.barrier(self._group)
        # returns when the files of all workers are on the disk
        save(state, checkpoint_id=temporary, process_group=self._group, no_dist=not self._group)
        if self._rank.index != 0:
            return
        sync(temporary / _RUN)
        if target.exists():  # of such a worker, and just the same
            shutil.rmtree(temporary)
        else:
            temporary.rename(target)
            sync(self._directory)
        for old in self._saved()[: -self._keep]:
            remove(old)
        self._on_saved(steps_done)


def load_parameters(directory: Path, parameters: dict[str, Tensor]) -> None:
    """Put the checkpoint's values of the trained parameters in their places, in one process, whatever number of workers
    wrote them."""
    state = {"parameters": {name: parameter.detach() for name, parameter in parameters.items()}}
    load(state, checkpoint_id=directory, no_dist=True)


def _state(trainer: Trainer) -> State:
    """Every tensor that decides later steps, by name, as the trainer holds it. Only what is trained: frozen weights
    come from the model again."""
    state: State = {"parameters": {}, "optimizer": {}, "reference": {}}
    for name, parameter in trainer.parameters.items():
        state["parameters"][name] = parameter.detach()
        state["optimizer"][name] = _moments(trainer.optimizer, parameter)
    if trainer.live_reference:
        state["reference"] = {name: one.detach() for name, one in trainer.live_reference.parameters.items()}
    return {kind: values for kind, values in state.items() if values}


def _moments(optimizer: torch.optim.AdamW, parameter: Tensor) -> dict[str, Tensor]:
    """Of one parameter; as before the first step, if it was not yet moved."""
    if not optimizer.state[parameter]:
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        }
    found: dict[str, Tensor] = optimizer.state[parameter]
    return found


def _copy(state: Any) -> Any:
    """In the memory of the CPU, where no later step reaches it."""
    if isinstance(state, dict):
        return {name: _copy(value) for name, value in state.items()}
    return state.detach().to("cpu", copy=True)
