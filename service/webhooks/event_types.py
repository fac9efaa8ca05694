"""Which events a webhook is told of: what its filter may say, and under which names it then hears of an event.

A filter lists names (`job.succeeded`), groups (`job.*`) or everything (`*`). OpenAI's three names for fine-tuning are
names of ours told in OpenAI's form.
"""

import re
from collections.abc import Iterable

from service.jobs.states import DeploymentState, JobState, PromotionState

TEST = "webhook.test"

# To the events of ours that they mean
OPENAI = {f"fine_tuning.{name}": name for name in ("job.succeeded", "job.failed", "job.cancelled")}

_NAME = re.compile(r"[a-z]+(\.[a-z_]+)+")
# The groups that the control plane writes alone, with all their names: a slip in one is refused
_CLOSED = {
    "job": {str(state) for state in JobState},
    "deployment": {str(state) for state in DeploymentState} | {"waiting", "removed"},
    "promotion": {str(state) for state in (PromotionState.PENDING, PromotionState.CURRENT, PromotionState.FAILED)},
}
_OPEN = frozenset(
    {"data", "reference", "train", "checkpoint", "model", "health", "stage"}
)  # attempts report these, and may add names


def check_filter(name: str) -> str:
    """The filter as it is. Raises ValueError if no event could match it, saying what there is."""
    if name == "*" or name in OPENAI:
        return name
    group, _, rest = name.partition(".")
    if group not in _CLOSED and group not in _OPEN:
        groups = ", ".join(f"{known}.*" for known in sorted([*_CLOSED, *_OPEN]))
        raise ValueError(f"there are no events '{name}': use *, one of {groups}, a name of these, or {_openai()}")
    if rest == "*":
        return name
    if group in _CLOSED and rest not in _CLOSED[group]:
        raise ValueError(f"there is no event '{name}'; of {group} there are {', '.join(sorted(_CLOSED[group]))}")
    if not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' is not the name of an event: lower-case words with dots, such as data.prepared")
    return name


def told_as(filters: Iterable[str], type: str) -> list[str]:
    """The names under which a webhook with these filters hears of an event of this type; none if it does not."""
    chosen = set(filters)
    ours = bool({"*", f"{type.partition('.')[0]}.*", type} & chosen)
    return [type] * ours + [alias for alias, name in OPENAI.items() if name == type and alias in chosen]


def _openai() -> str:
    return ", ".join(OPENAI)
