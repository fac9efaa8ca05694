"""The reference pass on the policy's own weights gives what scorers on a pool of their own give."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from service.spec.reports import EventReport, Report
from tests.workers.training_runs import STEPS, Steps, make_job, make_run, metrics_of, on_workers, trained
from workers.data.example_file import ExampleFile
from workers.engine.config import RunConfig
from workers.engine.loop import TrainingRun
from workers.engine.models import load_model, split
from workers.engine.parallel import Rank
from workers.reference.scorer import score
from workers.reference.store import ReferenceStore


@pytest.fixture(params=[{}, {"method": {"type": "lora", "rank": 4, "dropout": 0.3}}], ids=["full", "lora"])
def config(request: pytest.FixtureRequest, model_path: Path, tmp_path: Path) -> RunConfig:
    """A run whose store holds the scores of the model it starts from."""
    config = make_run(tmp_path / "run", model_path, make_job(**request.param))
    assert config.store_root
    shutil.rmtree(config.store_root)
    examples = ExampleFile(config.examples)
    scores = score(split(load_model(model_path).eval()), list(examples), config.job.training.precision, 1024)
    ReferenceStore(config.store_root, "").commit(zip((one.key for one in examples), scores, strict=True))
    return config


def by_itself(config: RunConfig, directory: Path) -> RunConfig:
    """The same run from an empty store."""
    return replace(
        config,
        store_root=directory / "store",
        checkpoints=directory / "checkpoints",
        export=directory / "export",
        scores_itself=True,
    )


def told(config: RunConfig, rank: Rank | None = None) -> tuple[Steps, dict[str, dict[str, Any]]]:
    """Metrics of each step, and the data of events by type."""
    torch.set_num_threads(1)
    reports: list[Report] = []
    TrainingRun(config, rank or Rank(), reports.append).run()
    return metrics_of(reports), {one.type: one.data for one in reports if isinstance(one, EventReport)}


def test_the_losses_are_the_same_and_a_second_run_scores_nothing(config: RunConfig, tmp_path: Path) -> None:
    expected = trained(config)
    alone = by_itself(config, tmp_path / "alone")
    metrics, events = told(alone)
    assert metrics[1]["loss"] == pytest.approx(expected[1]["loss"], abs=1e-6)
    for step in expected:
        assert metrics[step] == pytest.approx(expected[step], rel=1e-4, abs=1e-5)
    needed = len(ExampleFile(config.examples))
    assert events["reference.scored"] == {"scored": needed, "hits": 0}
    again = replace(alone, checkpoints=tmp_path / "again", export=tmp_path / "export")
    metrics_again, events = told(again)
    assert events["reference.scored"] == {"scored": 0, "hits": needed}
    assert metrics_again == metrics


def test_a_resumed_run_whose_scores_are_lost_scores_with_the_weights_of_the_start(
    config: RunConfig, tmp_path: Path
) -> None:
    alone = by_itself(config, tmp_path / "alone")
    expected, _ = told(alone)
    assert alone.store_root
    shutil.rmtree(alone.store_root)
    resumed, events = told(replace(alone, export=tmp_path / "export"))
    assert events["reference.scored"]["scored"] > 0
    assert resumed == {step: expected[step] for step in range(7, STEPS + 1)}


def _told(rank: Rank, configs: list[RunConfig], out: Path) -> None:
    found = [told(config, rank) for config in configs]
    if rank.index == 0:
        torch.save(found, out)


def test_two_workers_score_half_each(model_path: Path, tmp_path: Path) -> None:
    configs = [
        replace(
            by_itself(
                make_run(tmp_path / parallelism, model_path, make_job(parallelism=parallelism)),
                tmp_path / f"{parallelism}-alone",
            )
        )
        for parallelism in ("ddp", "fsdp")
    ]
    expected, events = told(by_itself(configs[0], tmp_path / "one"))
    on_workers(2, tmp_path, _told, configs, tmp_path / "told.pt")
    for config, (metrics, events_of_two) in zip(configs, torch.load(tmp_path / "told.pt"), strict=True):
        assert events_of_two["reference.scored"] == events["reference.scored"]
        assert config.store_root
        assert len(list((config.store_root / "shards").iterdir())) == 2
        for step in expected:
            assert metrics[step] == pytest.approx(expected[step], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"losses": [{"type": "sft"}]}, "no reference pass"),
        ({"training": {"reference_sync": {}}}, "no reference pass"),
        ({"reference": "/other"}, "leave out `reference`"),
    ],
)
def test_a_policy_that_is_not_the_reference_is_refused(changes: dict[str, Any], said: str) -> None:
    job = make_job().model_dump(mode="json") | {"resources": {"reference_placement": "policy"}}
    with pytest.raises(ValidationError, match=said):
        type(make_job()).model_validate(job | changes)
