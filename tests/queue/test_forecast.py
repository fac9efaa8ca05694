"""How long jobs run and when they start and end, from jobs like them. Pure."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.queue.capacity import Capacity, Needs, Node
from service.queue.estimate import Interval, Run, remaining, run_time
from service.queue.forecast import Eta, forecast
from service.queue.plan import OnCluster, Plan, Queued, Rules, decide
from service.queue.score import score
from service.queue.size import JobSize
from service.queue.snapshot import Snapshot
from service.spec import AlignmentJob, PoolRequest

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SPEC = AlignmentJob.model_validate({"model": "/models/a", "data": {"train": "file-" + "0" * 21}})
AT_ONCE = Interval(0, 0)


def ran(seconds: float, work: float | None = 100.0, model: str = "/models/a") -> Run:
    return Run(model, "full", work, seconds, 5)


def test_many_jobs_alike_give_a_narrow_interval() -> None:
    found = run_time(SPEC, 100.0, [ran(seconds) for seconds in range(91, 111)])
    assert found is not None
    assert 85 < found.low < 95 < 105 < found.high < 115


def test_one_job_alike_says_half_to_double() -> None:
    assert run_time(SPEC, 100.0, [ran(100)]) == Interval(50, 200)


def test_twice_the_work_takes_between_as_long_and_twice_as_long() -> None:
    found = run_time(SPEC, 200.0, [ran(100)] * 20)
    assert found is not None
    assert found.low == pytest.approx(100 / 1.05)
    assert found.high == pytest.approx(200 * 1.05)


def test_an_outlier_among_many_moves_the_interval_little() -> None:
    with_outlier = run_time(SPEC, 100.0, [ran(100)] * 19 + [ran(100_000)])
    assert with_outlier is not None
    assert with_outlier.high < 120


def test_jobs_of_another_size_or_method_say_nothing() -> None:
    assert run_time(SPEC, 100.0, [ran(100, work=1000.0), Run("/models/a", "lora", 100.0, 100, 5)]) is None


def test_a_job_of_unknown_size_is_compared_with_those_on_the_same_model() -> None:
    assert run_time(SPEC, None, [ran(100), ran(1000, model="/models/b")]) == Interval(50, 200)


def test_work_grows_with_passes_up_to_the_limit_on_steps_and_shrinks_with_workers() -> None:
    size = JobSize(parameters=10, rows=320, bytes=1000)

    def work(**training: object) -> float | None:
        return size.work(AlignmentJob.model_validate(SPEC.model_dump(mode="json") | {"training": training}))

    assert work(epochs=2) == 20_000
    assert work(epochs=2, max_steps=5) == 5_000  # 5 x 32 rows of 320
    assert JobSize(10, None, 1000).work(SPEC) == 10_000
    assert JobSize(None, 320, 1000).work(SPEC) is None


def test_a_job_that_trains_is_its_own_best_witness() -> None:
    begun = NOW - timedelta(seconds=100)
    at = {"started_at": begun.isoformat(), "from_at": begun.isoformat(), "updated_at": NOW.isoformat()}
    progress = {"train": at | {"from_done": 0, "done": 50, "total": 100, "unit": "steps"}}
    found = remaining(Interval(5000, 6000), "train", progress, begun, NOW)
    assert found is not None
    assert found.low < 100 < found.high < 200


def test_a_job_that_should_have_ended_long_ago_is_not_guessed_at() -> None:
    assert remaining(Interval(50, 60), "reference", {}, NOW - timedelta(seconds=30), NOW) == Interval(20, 30)
    assert remaining(Interval(50, 60), "reference", {}, NOW - timedelta(seconds=100), NOW) is None


def _needs(gpus: int) -> Needs:
    return Needs(PoolRequest(workers=gpus, gpus_per_worker=1), None)


def _snapshot(queued: list[Queued], on_cluster: list[OnCluster]) -> Snapshot:
    capacity = Capacity((Node("policy", 4, 64),), NOW)
    return Snapshot(NOW, queued, on_cluster, capacity, {}, Rules(9, 1e6), {}, {}, 0)


def _after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_a_job_starts_when_what_it_waits_for_has_ended() -> None:
    waiting = [Queued("first", "ada", _needs(4), NOW), Queued("second", "ada", _needs(4), _after(1))]
    snapshot = _snapshot(waiting, [OnCluster("running", "ada", _needs(2))])
    durations: dict[str, Interval | None] = {
        "running": Interval(100, 200),
        "first": Interval(1000, 2000),
        "second": Interval(1, 1),
    }
    etas = forecast(snapshot, durations, AT_ONCE)
    assert etas["running"] == Eta(None, None, _after(100), _after(200))
    assert etas["first"] == Eta(_after(100), _after(200), _after(1100), _after(2200))
    assert (etas["second"].start_low, etas["second"].start_high) == (_after(1100), _after(2200))


def test_what_waits_for_a_job_of_unknown_length_has_no_eta() -> None:
    waiting = [Queued("first", "ada", _needs(4), NOW), Queued("small", "ada", _needs(1), _after(1))]
    etas = forecast(
        _snapshot(waiting, [OnCluster("running", "ada", _needs(2))]), {"small": Interval(5, 5)}, Interval(1, 3)
    )
    assert etas["small"] == Eta(_after(1), _after(3), _after(6), _after(8))
    assert etas.get("first", Eta()) == Eta()


def test_a_job_that_never_fits_is_not_looked_for_at_every_end(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[int] = []

    def counted(*facts: Any, **options: Any) -> Plan:
        plans.append(1)
        return decide(*facts, **options)

    monkeypatch.setattr("service.queue.forecast.decide", counted)
    waiting = [Queued("huge", "ada", _needs(5), NOW), Queued("next", "ada", _needs(1), _after(1))]
    running = [
        OnCluster(f"running-{number}", "ada", Needs(PoolRequest(workers=1, gpus_per_worker=0, cpus_per_worker=0), None))
        for number in range(99)
    ]
    running.append(OnCluster("full", "ada", _needs(4)))
    durations: dict[str, Interval | None] = {one.id: Interval(50, 50) for one in running}
    durations |= {f"running-{number}": Interval(100 + number, 100 + number) for number in range(99)}
    etas = forecast(replace(_snapshot(waiting, running), rules=Rules(200, 1e6)), durations, AT_ONCE)
    assert etas["next"].start_low == _after(50)
    assert "huge" not in etas
    assert len(plans) == 2 * 3  # of the short and of the long runs: the order, now, and when "full" has ended


def test_a_score_counts_what_fell_into_its_interval() -> None:
    foretold = [(_after(0), _after(10), _after(5)), (_after(0), _after(20), _after(40)), (None, _after(1), _after(1))]
    scored = score("queued", "finish", foretold)
    assert (scored.count, scored.coverage) == (2, 0.5)
    assert (scored.median_error_s, scored.median_width_s) == (15, 15)
