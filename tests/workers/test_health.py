"""Alarms are raised by what they name, once, and by nothing else."""

from typing import Any

import pytest

from workers.health import HealthMonitor

WELL = {
    "rewards/accuracies": 0.7,
    "rewards/margins": 0.5,
    "logps_per_token/chosen": -1.0,
    "logps/chosen_end": -0.2,
    "kl": 0.02,
}
STEPS = 100

FAULTS: list[tuple[str, dict[str, float]]] = [
    ("likelihood_displacement", {"logps_per_token/chosen": -1.2, "rewards/margins": 2.0}),
    ("margin_saturation", {"rewards/accuracies": 0.995, "rewards/margins": 7.0}),
    ("length_drift", {"logps/chosen_end": -0.9}),
    ("kl_beyond_budget", {"kl": 0.7}),
    ("accuracy_at_chance", {"rewards/accuracies": 0.5}),
]


def alarms(monitor: HealthMonitor, steps: range, values: dict[str, float]) -> list[Any]:
    return [alarm for step in steps for alarm in monitor.after_step(step + 1, WELL | values)]


def monitor() -> HealthMonitor:
    return HealthMonitor(kl_budget=0.5, num_steps=STEPS)


@pytest.mark.parametrize(("name", "values"), FAULTS, ids=[name for name, _ in FAULTS])
def test_a_fault_raises_its_alarm_once_with_the_figures_and_advice(name: str, values: dict[str, float]) -> None:
    watched = monitor()
    assert alarms(watched, range(20), {}) == []
    (alarm,) = alarms(watched, range(20, STEPS), values)
    assert alarm.name == name
    assert alarm.advice
    assert set(values.values()) <= {round(value, 9) for value in alarm.evidence.values()}


def test_a_healthy_run_raises_none() -> None:
    assert alarms(monitor(), range(STEPS), {}) == []


def test_a_chosen_answer_that_becomes_unlikelier_while_margins_shrink_is_another_matter() -> None:
    watched = monitor()
    alarms(watched, range(20), {})
    assert alarms(watched, range(20, STEPS), {"logps_per_token/chosen": -1.2, "rewards/margins": 0.3}) == []


def test_chance_is_no_alarm_while_the_learning_rate_still_rises() -> None:
    watched = HealthMonitor(kl_budget=0.5, num_steps=1000)
    assert alarms(watched, range(200), {"rewards/accuracies": 0.5}) == []


@pytest.mark.parametrize("cut", [7, 25, 39])
def test_a_resumed_monitor_tells_what_an_uninterrupted_one_would(cut: int) -> None:
    values = [{} if step < 20 else FAULTS[2][1] for step in range(60)]
    whole, first = monitor(), monitor()
    expected = [alarm for step, one in enumerate(values) for alarm in whole.after_step(step + 1, WELL | one)]
    told = [alarm for step, one in enumerate(values[:cut]) for alarm in first.after_step(step + 1, WELL | one)]
    second = HealthMonitor(0.5, STEPS, first.state)
    told += [alarm for step, one in enumerate(values[cut:], cut) for alarm in second.after_step(step + 1, WELL | one)]
    assert told == expected
    assert len(told) == 1


def test_a_short_run_is_watched_too() -> None:
    watched = HealthMonitor(kl_budget=0.5, num_steps=31)
    assert [alarm.name for alarm in alarms(watched, range(31), {"kl": 0.9})] == ["kl_beyond_budget"]


def test_losses_without_pairs_are_watched_for_what_they_have() -> None:
    watched = monitor()
    only = {"logps_per_token/chosen": -1.0, "logps/chosen_end": -0.2}
    assert [alarm for step in range(60) for alarm in watched.after_step(step + 1, only)] == []


def test_first_steps_without_a_good_answer_are_no_reason_to_fail() -> None:
    """Of a few unpaired rows, all may be bad ones."""
    watched = monitor()
    bad = {name: value for name, value in WELL.items() if "chosen" not in name}
    found = [watched.after_step(step, bad if step == 3 else WELL) for step in range(1, STEPS + 1)]
    assert found == [[]] * STEPS
