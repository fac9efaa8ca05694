"""The reference pass on the policy's own weights gives what scorers on a pool of their own give."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from service.queue.capacity import Amount, Capacity, Needs, Node
from service.spec import AlignmentJob
from service.spec.pools import Pool
from service.spec.reports import AttemptBrief, EventReport, ProgressReport, Report
from tests.workers.training_runs import STEPS, Steps, make_job, make_run, metrics_of, on_workers, trained
from workers.attempt import Attempt
from workers.data.example_file import ExampleFile
from workers.engine.config import RunConfig
from workers.engine.loop import TrainingRun
from workers.engine.models import load_model, split
from workers.engine.parallel import Rank
from workers.errors import Paused
from workers.reference.scorer import score
from workers.reference.store import ReferenceStore
from workers.reporting import Reporter


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
    """Metrics of each step, and the data and message of events by type."""
    torch.set_num_threads(1)
    reports: list[Report] = []
    TrainingRun(config, rank or Rank(), reports.append).run()
    events = [one for one in reports if isinstance(one, EventReport)]
    return metrics_of(reports), {one.type: one.data | {"message": one.message} for one in events}


def test_the_losses_are_the_same_and_a_second_run_scores_nothing(config: RunConfig, tmp_path: Path) -> None:
    expected = trained(config)
    alone = by_itself(config, tmp_path / "alone")
    metrics, events = told(alone)
    assert metrics[1]["loss"] == pytest.approx(expected[1]["loss"], abs=1e-6)
    for step in expected:
        # before the first update every margin is 0, and rounding decides which answer is ahead
        undecided = {"rewards/accuracies"} if step == 1 else set()
        compared = {name: value for name, value in expected[step].items() if name not in undecided}
        assert {name: metrics[step][name] for name in compared} == pytest.approx(compared, rel=1e-4, abs=1e-5)
    needed = len(ExampleFile(config.examples))
    assert (events["reference.scored"]["scored"], events["reference.scored"]["hits"]) == (needed, 0)
    assert "packed rows with shared prompts" in events["reference.started"]["message"]
    again = replace(alone, checkpoints=tmp_path / "again", export=tmp_path / "export")
    metrics_again, events = told(again)
    assert (events["reference.scored"]["scored"], events["reference.scored"]["hits"]) == (0, needed)
    assert "reference.started" not in events
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


def test_a_pause_stops_the_pass_between_two_windows_and_keeps_what_is_scored(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.reference.plan._WINDOW", 4)
    alone = by_itself(config, tmp_path / "alone")
    reports: list[Report] = []
    with pytest.raises(Paused, match="in the reference pass"):
        TrainingRun(alone, Rank(), reports.append, lambda: any(isinstance(one, ProgressReport) for one in reports))
    _, events = told(alone)
    scored = events["reference.scored"]
    assert (scored["scored"], scored["hits"]) == (len(ExampleFile(config.examples)) - 4, 4)


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


LORA = {"training": {"method": {"type": "lora"}}}


@pytest.mark.parametrize(
    ("changes", "nodes", "by_policy"),
    [
        (LORA, {"policy": 1}, True),
        (LORA, {"policy": 1, "reference": 1}, False),
        (LORA, {"shared": 1}, True),  # a single GPU
        (LORA, {"shared": 2}, False),
        (LORA, {"shared": 1, "reference": 1}, False),
        (LORA, {"shared": 1, "policy": 1}, False),
        (LORA, {"policy": 4, "reference": 0}, False),  # scorers on CPUs
        (LORA, {"shared": 0}, False),  # no GPUs at all: a pass before training has all threads
        (LORA | {"resources": {"policy": {"workers": 4}}}, {"shared": 4}, True),
        (LORA | {"resources": {"policy": {"workers": 3}}}, {"shared": 4}, False),
        (LORA | {"resources": {"reference": {"workers": 4}}}, {"shared": 4}, False),  # three of them have a place
        (
            LORA | {"resources": {"policy": {"gpus_per_worker": 0.5}, "reference": {"gpus_per_worker": 0.5}}},
            {"shared": 1},
            False,
        ),
        (LORA | {"resources": {"policy": {"gpus_per_worker": 0}}}, {"shared": 1}, False),
        (LORA | {"reference": "/other"}, {"policy": 1}, False),
        (LORA | {"reference": "/other"}, {"shared": 1}, False),
        (LORA | {"resources": {"reference_placement": "pool"}}, {"policy": 1}, False),
        (LORA | {"resources": {"reference_placement": "pool"}}, {"shared": 1}, False),
        ({}, {"policy": 1}, False),
        ({}, {"shared": 1}, False),
        ({"resources": {"reference_placement": "policy"}}, {"policy": 1, "reference": 1}, True),
    ],
)
def test_lora_scores_itself_where_scorers_have_no_place_and_the_queue_counts_none_then(
    changes: dict[str, Any], nodes: dict[str, float], by_policy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def living() -> list[dict[str, Any]]:
        return [
            {
                "Alive": True,
                "Labels": {"pool": pool},
                "NodeID": pool,
                "Resources": {"CPU": 8} | ({"GPU": gpus} if gpus else {}),
            }
            for pool, gpus in nodes.items()
        ]

    monkeypatch.setattr("ray.nodes", living)
    spec = AlignmentJob.model_validate({"model": "/m", "data": {"train": "file-" + "0" * 21}} | changes)
    brief = AttemptBrief(
        attempt_id="a",
        attempt_number=1,
        job_id="j",
        spec=spec,
        storage=str(tmp_path),
        train_file=None,
        heartbeat_every_s=1,
    )
    reporter = Reporter("http://127.0.0.1:9", "a", "token", on_stop=lambda: None)
    attempt = Attempt(brief, reporter, on_drain=lambda: None)
    assert attempt._policy_scores == by_policy
    seen = Capacity(tuple(Node(pool, gpus, 8) for pool, gpus in nodes.items()), datetime.now(UTC))
    assert (Pool.REFERENCE in Needs.of(spec).in_pools(seen)) != by_policy
    if by_policy:
        assert Needs.of(spec).demand(seen).reference == Amount()
