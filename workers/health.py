"""Watches a run's metrics for what goes wrong in preference training without an error, and says what to try."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

_WINDOW = 20  # steps that are averaged, so that the mix of rows in a step does not matter ...
_SHARE = 0.25  # ... or this share of a run too short for that, but at least ...
_LEAST = 5
_FALL = 0.1  # nats a token by which the chosen answers may become less likely
_SATURATED = 0.99  # of the pairs in the right order ...
_SATURATED_MARGIN = 6.0  # ... by a reward margin whose sigmoid loss has 1/400 of its slope left
_END_FALL = 0.5  # nats by which the ends of the chosen answers may become less likely
_CHANCE = 0.52  # share of pairs in the right order that is no better than a coin ...
_SETTLED = 0.25  # ... once this share of the steps is done


@dataclass(frozen=True)
class Alarm:
    """What was seen, with the figures that show it, and what mostly helps."""

    name: str
    message: str
    advice: str
    evidence: dict[str, float]


class HealthState(TypedDict):
    first: list[dict[str, float]]  # the metrics of the first steps
    last: list[dict[str, float]]  # ... and of the last
    told: list[str]


class HealthMonitor:
    """Fed with each step's metrics; tells each alarm once. `state` goes into checkpoints, so that a resumed run
    compares with the same beginning.

    Means over the first and over the last 20 steps are compared, in a run of fewer than 80 steps over a quarter of
    them, at least 5; nothing is told before both windows are full.
    kl_budget: nats a token that the policy may be from its reference, see `kl` in docs/metrics.md.
    """

    def __init__(self, kl_budget: float, num_steps: int, state: HealthState | None = None) -> None:
        self._kl_budget = kl_budget
        self._num_steps = num_steps
        self._window = max(_LEAST, min(_WINDOW, int(_SHARE * num_steps)))
        self._state: HealthState = copy.deepcopy(state) if state else {"first": [], "last": [], "told": []}

    @property
    def state(self) -> HealthState:
        return self._state

    def after_step(self, steps_done: int, metrics: Mapping[str, float]) -> list[Alarm]:
        """The alarms that this step gives rise to."""
        state = self._state
        if len(state["first"]) < self._window:
            state["first"].append(dict(metrics))
            return []
        state["last"] = [*state["last"], dict(metrics)][-self._window :]
        if len(state["last"]) < self._window:
            return []
        first, last = _means(state["first"]), _means(state["last"])
        settled = steps_done >= _SETTLED * self._num_steps
        alarms = [
            alarm
            for alarm in (
                _likelihood_displacement(first, last),
                _margin_saturation(last),
                _length_drift(first, last),
                _kl_beyond_budget(last, self._kl_budget),
                _accuracy_at_chance(last) if settled else None,
            )
            if alarm and alarm.name not in state["told"]
        ]
        state["told"] += [alarm.name for alarm in alarms]
        return alarms


def _likelihood_displacement(first: Mapping[str, float], last: Mapping[str, float]) -> Alarm | None:
    """Both answers become less likely, the chosen one too (Razin et al., arXiv 2410.08847)."""
    name = "logps_per_token/chosen"
    if any(wanted not in metrics for metrics in (first, last) for wanted in ("rewards/margins", name)):
        return None  # no such row in some step
    fall = first[name] - last[name]
    if fall < _FALL or last["rewards/margins"] <= first["rewards/margins"]:
        return None
    return Alarm(
        "likelihood_displacement",
        f"The chosen answers became less likely by {fall:.2f} nats a token while margins grew: probability goes to "
        "answers that are in neither column.",
        "Add {type: sft, weight: 0.1}, lower the learning rate, raise beta, or take apo_zero or nca_pair.",
        {
            "logps_per_token/chosen at first": first[name],
            "logps_per_token/chosen now": last[name],
            "rewards/margins at first": first["rewards/margins"],
            "rewards/margins now": last["rewards/margins"],
        },
    )


def _margin_saturation(last: Mapping[str, float]) -> Alarm | None:
    accuracy, margin = last.get("rewards/accuracies"), last.get("rewards/margins")
    if accuracy is None or margin is None or accuracy < _SATURATED or margin < _SATURATED_MARGIN:
        return None
    return Alarm(
        "margin_saturation",
        f"{accuracy:.1%} of the pairs are in order, by a margin of {margin:.1f} on average: hardly any gradient is "
        "left, and what is learnt now is these very pairs.",
        "Stop earlier or train fewer epochs, lower beta, or take ipo, which has a finite target.",
        {"rewards/accuracies": accuracy, "rewards/margins": margin},
    )


def _length_drift(first: Mapping[str, float], last: Mapping[str, float]) -> Alarm | None:
    name = "logps/chosen_end"
    if name not in first or name not in last or first[name] - last[name] < _END_FALL:
        return None
    return Alarm(
        "length_drift",
        f"The end of the chosen answers became less likely by {first[name] - last[name]:.2f} nats: the model will "
        "write on where they stop.",
        "Take a loss per token (sigmoid_norm, simpo), ld_alpha 0.5, or data whose better answers are not longer.",
        {"logps/chosen_end at first": first[name], "logps/chosen_end now": last[name]},
    )


def _kl_beyond_budget(last: Mapping[str, float], budget: float) -> Alarm | None:
    kl = last.get("kl")
    if kl is None or kl <= budget:
        return None
    return Alarm(
        "kl_beyond_budget",
        f"The policy is about {kl:.3g} nats a token from its reference, evaluation.kl_budget is {budget:g}.",
        "Raise beta, lower the learning rate, or raise the budget if you meant the model to change this much.",
        {"kl": kl, "kl_budget": budget},
    )


def _accuracy_at_chance(last: Mapping[str, float]) -> Alarm | None:
    accuracy = last.get("rewards/accuracies")
    if accuracy is None or accuracy > _CHANCE:
        return None
    return Alarm(
        "accuracy_at_chance",
        f"{accuracy:.1%} of the pairs are in order after a quarter of the steps: no better than a coin.",
        "Raise the learning rate; if that does not help, look for swapped or contradictory labels in the data report.",
        {"rewards/accuracies": accuracy},
    )


def _means(window: list[dict[str, float]]) -> dict[str, float]:
    """Of what every step of the window has."""
    names = set(window[0]).intersection(*window[1:])
    return {name: sum(step[name] for step in window) / len(window) for name in names}
