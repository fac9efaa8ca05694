"""Checkpoints of a run: all that decides its later steps, written beside training and found again after a crash.

    {directory}/step-00000050/    each worker's slices in torch's distributed format; run.json; checksums.json

A checkpoint is there when its directory has its name: all workers write into a hidden one, which the first renames once
everything is on the disk. So the newest one is whole, unless the storage loses or changes what it has: then the run
goes on from the one before it. Any number of workers, with whole copies or slices, can go on from what any other number
wrote.
"""

import json
import logging
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from service.spec.layout import step_name
from service.spec.losses import LossKind
from service.spec.reports import Fault
from workers.data.digest import digest_of
from workers.durable import remove, sync
from workers.engine.parallel import Rank, agreed
from workers.engine.trainer import Trainer
from workers.errors import AttemptError
from workers.health import HealthMonitor, HealthState
from workers.losses import RunningMean

logger = logging.getLogger(__name__)

State = dict[str, Tensor]

_RUN = "run.json"
_CHECKSUMS = "checksums.json"  # SHA-256 of every other file
_METADATA = ".metadata"  # torch's, of which tensor is where


class Resumed(NamedTuple):
    """Where a run goes on. unreadable: newer checkpoints, a sentence each, that had to be passed over."""

    steps_done: int
    health: HealthState | None
    unreadable: tuple[str, ...] = ()


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
            "checksums": _CHECKSUMS,
            "health": health.state,
            "baselines": {str(kind): (one.mean, one.weight) for kind, one in trainer.baselines.items()},
        }
        self._pending = self._writer.submit(
            self._write, own_part(_state(trainer), self._rank), json.dumps(run), steps_done
        )

    def wait(self) -> None:
        """Until nothing is being written."""
        if self._pending:
            pending, self._pending = self._pending, None
            pending.result()

    def load_newest(self, trainer: Trainer) -> Resumed:
        """Put the trainer's state back, of the newest checkpoint that can be read: 0 steps and no health where none is.
        Newer ones, which cannot be read, are removed. All workers call it. Raises AttemptError `checkpoints_unreadable`
        where none of them can be read."""
        if self._rank.index == 0:
            for torn in self._directory.glob(".step-*"):
                shutil.rmtree(torn, ignore_errors=True)
        names: list[str] = self._as_first([path.name for path in reversed(self._saved())])
        unreadable: list[str] = []
        for name in names:
            try:
                run = self._load(self._directory / name, trainer)
            except _UnreadableError as error:
                unreadable.append(f"{name}: {error}")
                logger.warning("a checkpoint cannot be read, the one before it is tried: %s", unreadable[-1])
                continue
            if self._rank.index == 0:
                for newer in names[: len(unreadable)]:
                    remove(self._directory / newer)  # else the whole one of that step would find its name taken
            trainer.baselines = {LossKind(kind): RunningMean(*one) for kind, one in run["baselines"].items()}
            return Resumed(run["steps_done"], run["health"], tuple(unreadable))
        if not unreadable:
            return Resumed(0, None)
        # Not from the first step: the trainer holds parts of what was read, the work of days would be lost for what a
        # storage that is back may undo, and with every save another of the old checkpoints would go.
        raise AttemptError(
            "checkpoints_unreadable",
            f"None of the {len(names)} checkpoints in {self._directory} can be read; the newest, {unreadable[0]}. "
            "Bring one back, or remove them all to train from the first step.",
            Fault.SYSTEM,
        )

    def _load(self, directory: Path, trainer: Trainer) -> dict[str, Any]:
        """Put the trainer's state back, and return what else was saved. All workers get the same, or all raise."""
        found = self._as_first(_read(directory) if self._rank.index == 0 else None)
        if isinstance(found, str):
            raise _UnreadableError(found)
        run: dict[str, Any]
        run, checksums = found
        names = sorted(checksums)[self._rank.index :: self._rank.count]  # all of them, among the workers
        if damage := agreed(_damage(directory, {name: checksums[name] for name in names})):
            raise _UnreadableError(damage)
        try:
            load(_state(trainer), checkpoint_id=directory, process_group=self._group, no_dist=not self._group)
        except CheckpointException as error:  # of any worker, raised by all of them
            cause, _ = next(iter(error.failures.values()))
            raise _UnreadableError(f"{type(cause).__name__}: {cause}") from error
        return run

    def _saved(self) -> list[Path]:
        return sorted(self._directory.glob("step-*"))

    def _as_first(self, value: Any) -> Any:
        """What the first worker has, whatever this one sees."""
        found = [value]
        if self._group:
            distributed.broadcast_object_list(found, src=0, group=self._group)
        return found[0]

    def _all_checksums(self, directory: Path) -> dict[str, str]:
        """Of each file, which the worker that wrote it reads again."""
        written = [path.name for path in directory.glob(f"__{self._rank.index}_*")]
        own = {name: digest_of(directory / name) for name in written + [_RUN, _METADATA] * (self._rank.index == 0)}
        found = [own] * self._rank.count
        if self._group:
            distributed.all_gather_object(found, own, group=self._group)
        return {name: checksum for one in found for name, checksum in one.items()}

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
        checksums = self._all_checksums(temporary)
        if self._rank.index != 0:
            return
        (temporary / _CHECKSUMS).write_text(json.dumps(checksums))
        sync(temporary / _RUN)
        sync(temporary / _CHECKSUMS)
        sync(temporary)  # the names of all workers' files, before this one is seen
        if target.exists():  # of such a worker, and just the same
            shutil.rmtree(temporary)
        else:
            temporary.rename(target)
            sync(self._directory)
        for old in self._saved()[: -self._keep]:
            remove(old)
        self._on_saved(steps_done)


class _UnreadableError(Exception):
    """A checkpoint, or a part of it, is not what was written; says why."""


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, str]] | str:
    """What the checkpoint holds beside tensors, and the checksums of its files; or why that cannot be read."""
    run = _json_object(directory / _RUN)
    if isinstance(run, str):
        return run
    if "checksums" not in run:  # an older version wrote none; a run that an upgrade interrupts goes on all the same
        return run, {}
    checksums = _json_object(directory / _CHECKSUMS)
    if isinstance(checksums, str):
        return checksums
    if missing := {_RUN, _METADATA} - checksums.keys():
        return f"{_CHECKSUMS}: there is none of {', '.join(sorted(missing))}"
    return run, checksums


def _json_object(path: Path) -> dict[str, Any] | str:
    """The file's content, or why it cannot be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return f"{path.name}: {type(error).__name__}: {error}"
    return content if isinstance(content, dict) else f"{path.name}: it is no JSON object"


def _damage(directory: Path, checksums: dict[str, str]) -> str | None:
    """Which of these files is not what was written."""
    for name, checksum in checksums.items():
        try:
            found = digest_of(directory / name)
        except OSError as error:
            return f"{name}: {type(error).__name__}: {error}"
        if found != checksum:
            return f"{name}: its checksum is not the one of what was written"
    return None


def load_parameters(directory: Path, parameters: dict[str, Tensor]) -> None:
    """Put the checkpoint's values of the trained parameters in their places, in one process, whatever number of workers
    wrote them. Raises AttemptError `checkpoints_unreadable`."""
    found = _read(directory)
    damage = found if isinstance(found, str) else _damage(directory, found[1])
    if damage:
        raise AttemptError(
            "checkpoints_unreadable", f"The checkpoint at {directory} is damaged: {damage}.", Fault.SYSTEM
        )
    state = {f"parameters.{name}": parameter.detach() for name, parameter in parameters.items()}
    load(state, checkpoint_id=directory, no_dist=True)


def _state(trainer: Trainer) -> State:
    """Every tensor that decides later steps, by name, as the trainer holds it. Only what is trained: frozen weights
    come from the model again."""
    state: State = {}
    for name, parameter in trainer.parameters.items():
        state[f"parameters.{name}"] = parameter.detach()
        moments = _moments(trainer.optimizer, parameter)
        state |= {f"optimizer.{name}.{moment}": value for moment, value in moments.items()}
    if trainer.live_reference:
        state |= {f"reference.{name}": one.detach() for name, one in trainer.live_reference.parameters.items()}
    return state


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


def own_part(state: State, rank: Rank) -> State:
    """What this worker has to write, in the memory of the CPU, where no later step reaches it: its slices, and of
    tensors that every worker holds whole about as many bytes as any other. Copies of all on each would take the memory
    of a machine as often as it has workers."""
    mine: State = {}
    taken = [0] * rank.count  # bytes
    for name, tensor in state.items():
        if not isinstance(tensor, DTensor):
            least = taken.index(min(taken))
            taken[least] += tensor.nbytes
            if least != rank.index:
                continue
        mine[name] = tensor.detach().to("cpu", copy=True)
    return mine
