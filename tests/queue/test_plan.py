"""The decision: who starts, who waits, and that nobody waits for ever. Pure."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.projects.quota import Quota
from service.queue.capacity import Amount, Capacity, Demand, Needs, Node, fits
from service.queue.plan import Limit, Load, OnCluster, Plan, Queued, Rules, WaitCode, plan
from service.queue.plan import decide as plan_of
from service.spec import PoolRequest
from service.spec.pools import Pool

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
PATIENCE_S = 1000.0
RULES = Rules(max_running=100, patience_s=PATIENCE_S)
EIGHT = Capacity((Node("policy", 8, 100), Node("reference", 2, 100)), NOW)


def needs(gpus: int, scorers: int = 0) -> Needs:
    scorer = PoolRequest(workers=scorers, gpus_per_worker=1) if scorers else None
    return Needs(PoolRequest(workers=gpus, gpus_per_worker=1), scorer)


def queued(id: str, gpus: int = 1, *, waited_s: float = 0, project: str = "ada", priority: int = 0) -> Queued:
    return Queued(id, project, needs(gpus), NOW - timedelta(seconds=waited_s), priority=priority)


def decide(waiting: list[Queued], running: list[OnCluster] | None = None, **changed: object) -> Plan:
    facts = {"capacity": EIGHT, "used": {}, "rules": RULES, "now": NOW} | changed
    return plan(waiting, running or [], **facts)  # type: ignore[arg-type]


def test_a_small_job_passes_a_big_one_that_does_not_fit() -> None:
    decided = decide([queued("big", 8, waited_s=10), queued("small", 2)], [OnCluster("running", "ada", needs(2))])
    assert decided.starts == ("small",)
    assert decided.waits["big"].code is WaitCode.POOL_FULL
    assert decided.waits["big"].missing == {Pool.POLICY: Amount(gpus=2)}
    assert decided.waits["big"].holders == ("running",)


def test_nothing_passes_a_big_job_that_has_waited_too_long() -> None:
    waiting = [queued("big", 8, waited_s=PATIENCE_S + 1), queued("small", 2)]
    decided = decide(waiting, [OnCluster("running", "ada", needs(2))])
    assert decided.starts == ()
    assert (decided.waits["small"].code, decided.waits["small"].ahead) == (WaitCode.BEHIND_AGED_JOB, "big")


def test_what_an_aged_job_does_not_need_may_be_used() -> None:
    elsewhere = Capacity((Node("policy", 8, 100), Node("shared", 0, 50)), NOW)
    waiting = [queued("big", 8, waited_s=PATIENCE_S + 1), Queued("cpu", "ada", _without_gpus(), NOW)]
    decided = decide(waiting, [OnCluster("running", "ada", needs(2))], capacity=elsewhere)
    assert decided.starts == ("cpu",)


def _without_gpus() -> Needs:
    return Needs(PoolRequest(workers=1, gpus_per_worker=0), None)


def test_a_job_that_never_fits_keeps_nobody_waiting() -> None:
    waiting = [queued("huge", 9, waited_s=PATIENCE_S + 1), queued("small", 8)]
    decided = decide(waiting)
    assert decided.starts == ("small",)
    assert decided.waits["huge"].code is WaitCode.NEVER_FITS


def test_a_job_that_is_held_back_keeps_its_place_and_nobody_waiting() -> None:
    held = Queued("held", "ada", needs(8), NOW - timedelta(seconds=PATIENCE_S + 1), held="Waits for its retry.")
    decided = decide([held, queued("other", 8)])
    assert decided.starts == ("other",)
    assert (decided.waits["held"].code, decided.waits["held"].held) == (WaitCode.HELD, "Waits for its retry.")


def test_within_a_project_the_higher_priority_goes_first_then_the_older() -> None:
    waiting = [queued("a", 8), queued("c", 8, priority=1), queued("b", 8, priority=1)]
    assert decide(waiting).starts == ("b",)
    assert [id for id, _ in sorted(decide(waiting).waits.items(), key=lambda one: one[1].position)] == ["c", "a"]


def test_a_priority_does_not_pass_another_projects_turn() -> None:
    waiting = [queued("mine", 8, project="ada", priority=100), queued("theirs", 8, project="bob", priority=-100)]
    assert decide(waiting, used={"ada": 3600.0}).starts == ("theirs",)


def test_projects_take_turns() -> None:
    waiting = [queued(f"{project}{n}", 8, waited_s=10 - n, project=project) for project in "ab" for n in range(3)]
    decided = decide(waiting)
    order = [*decided.starts, *sorted(decided.waits, key=lambda id: decided.waits[id].position)]
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_a_project_with_twice_the_share_may_use_twice_as_much() -> None:
    rules = Rules(max_running=100, patience_s=PATIENCE_S, shares={"ada": 2.0})
    waiting = [queued("mine", 8, project="ada"), queued("theirs", 8, project="bob")]
    assert decide(waiting, rules=rules, used={"ada": 150.0, "bob": 100.0}).starts == ("mine",)
    assert decide(waiting, rules=rules, used={"ada": 250.0, "bob": 100.0}).starts == ("theirs",)


@pytest.mark.parametrize("capacity", [None, EIGHT])
def test_no_more_jobs_start_than_the_operator_allows(capacity: Capacity | None) -> None:
    rules = Rules(max_running=2, patience_s=PATIENCE_S)
    decided = decide([queued("a"), queued("b")], [OnCluster("c", "ada", needs(1))], rules=rules, capacity=capacity)
    assert decided.starts == ("a",)
    assert decided.waits["b"].code is WaitCode.MAX_RUNNING_JOBS
    assert decided.waits["b"].holders == ("a", "c") or decided.waits["b"].holders == ("c", "a")


def test_without_a_look_at_the_cluster_only_the_number_of_jobs_limits() -> None:
    assert decide([queued("huge", 4000)], capacity=None).starts == ("huge",)


def test_a_projects_quota_counts_what_starts_in_the_same_step_and_holds_up_no_other_project() -> None:
    rules = Rules(9, PATIENCE_S, limits={"ada": Limit(Quota(max_running_jobs=2), 0.0)})
    waiting = [queued(f"a{n}", waited_s=PATIENCE_S + 9 - n) for n in range(3)] + [queued("b", project="bob")]
    decided = decide(waiting, [OnCluster("on", "ada", needs(1))], rules=rules)
    assert decided.starts == ("a0", "b")
    assert decided.waits["a1"].code is WaitCode.QUOTA
    assert "2 of 2 running jobs" in (decided.waits["a1"].held or "")


def test_a_quota_of_gpu_hours_keeps_jobs_with_gpus_only() -> None:
    rules = Rules(9, PATIENCE_S, limits={"ada": Limit(Quota(max_gpu_hours_month=10), 10.0)})
    with_gpu = Queued("gpu", "ada", needs(1), NOW, gpus=1)
    assert decide([with_gpu, queued("cpu")], rules=rules).starts == ("cpu",)


_NEEDS = st.builds(needs, st.integers(1, 9), st.integers(0, 2))
_JOBS = st.lists(
    st.tuples(_NEEDS, st.sampled_from("abc"), st.integers(-2, 2), st.integers(0, 2 * int(PATIENCE_S))), max_size=12
)
_NODES = st.lists(
    st.builds(Node, st.sampled_from(["policy", "reference", "shared"]), st.integers(0, 8), st.just(100)), max_size=4
)


def _jobs(drawn: list[tuple[Needs, str, int, int]]) -> list[Queued]:
    return [
        Queued(f"job{place:02}", project, asked, NOW - timedelta(seconds=waited), priority=priority)
        for place, (asked, project, priority, waited) in enumerate(drawn)
    ]


@settings(max_examples=100, deadline=None)
@given(_JOBS, _JOBS, _NODES, st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_plan_is_never_over_capacity_and_the_same_for_the_same_facts(
    waiting: list[tuple[Needs, str, int, int]],
    running: list[tuple[Needs, str, int, int]],
    nodes: list[Node],
    max_running: int,
    random: object,
) -> None:
    jobs = _jobs(waiting)
    held = [OnCluster(f"on{place:02}", project, asked) for place, (asked, project, _, _) in enumerate(running)]
    capacity = Capacity(tuple(nodes), NOW)
    rules = Rules(max_running, PATIENCE_S)
    decided = decide(jobs, held, capacity=capacity, rules=rules)

    assert set(decided.starts) | set(decided.waits) == {job.id for job in jobs}
    assert not set(decided.starts) & set(decided.waits)
    if decided.starts:
        by_id = {job.id: job.needs for job in jobs}
        demands = [job.needs.demand(capacity) for job in held]
        demands += [by_id[id].demand(capacity) for id in decided.starts]
        assert fits(sum(demands, Demand()), capacity)
        assert len(demands) <= max_running
    shuffled_jobs, shuffled_held = list(jobs), list(held)
    random.shuffle(shuffled_jobs)  # type: ignore[attr-defined]
    random.shuffle(shuffled_held)  # type: ignore[attr-defined]
    assert decide(shuffled_jobs, shuffled_held, capacity=capacity, rules=rules) == decided


@settings(max_examples=25, deadline=None)
@given(_JOBS, _NODES, st.integers(1, 4), st.integers(1, 500))
def test_every_job_that_fits_the_empty_cluster_starts_however_many_come_after_it(
    drawn: list[tuple[Needs, str, int, int]], nodes: list[Node], max_running: int, run_s: int
) -> None:
    """Small jobs of the highest priority, of a project that has used nothing, keep coming."""
    capacity = Capacity(tuple(nodes), NOW)
    rules = Rules(max_running, PATIENCE_S)
    waiting = {job.id: job for job in _jobs(drawn)}
    wanted = {id for id, job in waiting.items() if fits(job.needs.demand(capacity), capacity)}
    running: dict[str, tuple[OnCluster, datetime]] = {}
    now, step_s, started = NOW, 100, set()
    # Past their patience, jobs go one after the other at worst.
    for step in range(int((PATIENCE_S + (len(waiting) + max_running + 2) * (run_s + step_s)) / step_s) + 2):
        running = {id: (job, end) for id, (job, end) in running.items() if end > now}
        waiting[f"late{step:04}"] = Queued(f"late{step:04}", "new", needs(1), now, priority=2)
        decided = plan(
            list(waiting.values()),
            [job for job, _ in running.values()],
            capacity,
            {"a": 1e9, "b": 1e9, "c": 1e9},
            rules,
            now,
        )
        for id in decided.starts:
            job = waiting.pop(id)
            running[id] = (OnCluster(id, job.project_id, job.needs), now + timedelta(seconds=run_s))
            started.add(id)
        now += timedelta(seconds=step_s)
    assert wanted <= started


def test_holders_are_named_also_when_some_of_them_started_in_the_same_plan() -> None:
    waiting = [queued("a", 2), queued("b", 8), queued("c", 3), queued("d", 8)]
    decided = decide(waiting, [OnCluster("running", "ada", needs(2))])
    assert decided.starts == ("a", "c")
    assert decided.waits["b"].holders == ("a", "running")
    assert decided.waits["d"].holders == ("c", "a", "running")


_JOBS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2), st.sampled_from(["ada", "bob"])), max_size=8)


@settings(deadline=None)  # its first example may meet a busy machine
@given(_JOBS, _JOBS, st.sets(st.integers(0, 7)))
def test_what_is_added_up_as_jobs_come_and_go_is_what_is_there(
    here: list[tuple[int, int, str]], coming: list[tuple[int, int, str]], going: set[int]
) -> None:
    def jobs(name: str, of: list[tuple[int, int, str]]) -> list[OnCluster]:
        return [
            OnCluster(f"{name}{place}", project, needs(gpus or 1, scorers), gpus)
            for place, (gpus, scorers, project) in enumerate(of)
        ]

    first, then = jobs("first", here), jobs("then", coming)
    load = Load(EIGHT, first)
    load.holders(Demand(Amount(1)))
    for one in then:
        load.add(one, one.needs.demand(EIGHT))
    gone = [one for place, one in enumerate(first) if place in going]
    for one in gone:
        load.remove(one)
    left = [one for one in [*first, *then] if one not in gone]
    quota = Limit(Quota(max_running_jobs=3, max_gpus=9.0), 0.0)
    rules = Rules(max_running=6, patience_s=PATIENCE_S, limits={"ada": quota})
    waiting = [queued("x", 1), queued("y", 6), queued("z", 2, project="bob"), queued("old", 8, waited_s=2 * PATIENCE_S)]
    kept_up = plan_of(waiting, load, {}, rules, NOW)
    anew = plan(waiting, left, EIGHT, {}, rules, NOW)
    assert kept_up.starts == anew.starts
    for id, wait in anew.waits.items():
        assert (kept_up.waits[id].code, kept_up.waits[id].missing) == (wait.code, wait.missing)
        assert set(kept_up.waits[id].holders) == set(wait.holders)
