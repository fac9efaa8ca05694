"""Whole training runs on files, as Ray's workers make them, in processes of this machine."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

from service.spec import AlignmentJob, Precision
from service.spec.reports import EventReport, MetricsReport, Report
from tests.models import make_tokenizer
from tests.workers.runs import make_pairs
from workers.data.example_file import write_examples
from workers.engine.config import RunConfig
from workers.engine.loop import TrainingRun
from workers.engine.models import load_model, split
from workers.engine.parallel import Rank
from workers.reference.handover import PassState, write_state
from workers.reference.scorer import score
from workers.reference.store import ReferenceStore
from workers.sources import Weights

STEPS = 8
Steps = dict[int, dict[str, float]]


def make_job(losses: Sequence[dict[str, Any]] = ({"type": "sigmoid"},), **training: Any) -> AlignmentJob:
    defaults = {"batch_size": 6, "max_steps": STEPS, "epochs": 9, "learning_rate": 1e-3, "precision": "float32"}
    return AlignmentJob.model_validate(
        {
            "model": "/m",
            "data": {"train": "file-" + "0" * 21},
            "losses": list(losses),
            "training": defaults | {"checkpoint_every": 3, "micro_batch_tokens": 128} | training,
            "evaluation": {"held_out_fraction": 0.2},
        }
    )


def make_run(directory: Path, model: Path, job: AlignmentJob) -> RunConfig:
    """A run whose examples are prepared and scored under a reference that is not the policy."""
    directory.mkdir(parents=True)
    pairs = make_pairs(make_tokenizer())
    write_examples(directory / "examples.arrow", pairs)
    config = RunConfig(
        job, Weights(model), directory / "examples.arrow", directory / "checkpoints", directory / "export"
    )
    if job.training.reference_sync:
        return replace(config, reference=model)
    if not job.needs_reference:
        return config
    reference = split(load_model(model, random_seed=7).eval())
    scores = score(reference, pairs, Precision.FLOAT32, 1024)
    ReferenceStore(directory / "store", "").commit(zip((one.key for one in pairs), scores, strict=True))
    write_state(directory / "state", PassState.COMPLETE)
    return replace(config, store_root=directory / "store", pass_state=directory / "state")


def trained(config: RunConfig, rank: Rank | None = None) -> Steps:
    """The metrics of each step of a run, but for those of time; a run that was cut off goes on."""
    torch.set_num_threads(1)
    reports: list[Report] = []
    TrainingRun(config, rank or Rank(), reports.append).run()
    for one in reports:
        if isinstance(one, EventReport) and one.type == "train.started":
            assert one.data["compiled"] == config.job.training.compile, one.message
            assert ("reference that follows: packed" in one.message) == bool(config.reference), one.message
    return metrics_of(reports)


def metrics_of(reports: Sequence[Report], split: str = "train") -> Steps:
    of_time = {"tokens_per_s", "pairs_per_s", "policy_wait_s"}
    return {
        one.step: {name: value for name, value in one.values.items() if name not in of_time}
        for one in reports
        if isinstance(one, MetricsReport) and one.split == split
    }


def on_workers(count: int, directory: Path, function: Callable[..., Any], *args: Any) -> None:
    """Call `function(rank, *args)` in `count` processes that speak to each other.

    What `function` makes must be gone when it returns: a DDP module that outlives its process group ends the group's
    threads while it holds the GIL, for which one of them may wait.
    """
    with tempfile.TemporaryDirectory(dir=directory) as meeting:
        multiprocessing.spawn(_joined, (count, Path(meeting) / "file", function, args), nprocs=count)


def _joined(index: int, count: int, meeting: Path, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=index,
        world_size=count,
        timeout=timedelta(seconds=120),
    )
    function(Rank(index, count), *args)
    distributed.destroy_process_group()
