"""docs/metrics.md defines what a run reports: no name is missing, none is made up."""

import re
from pathlib import Path
from typing import Any

import pytest

from service.spec import AlignmentJob, LossKind
from workers.engine.metrics import metric_names

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
TRAINER = {"grad_norm", "learning_rate", "epoch", "tokens_per_s", "pairs_per_s", "policy_wait_s"}


def documented(heading: str) -> set[str]:
    section = PAGE.partition(f"# {heading}\n")[2].partition("\n# ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def names(losses: list[dict[str, Any]]) -> set[str]:
    job = AlignmentJob.model_validate({"model": "/m", "data": {"train": "file-" + "0" * 21}, "losses": losses})
    return {re.sub("^loss/.*", "loss/TYPE", name) for name in metric_names(job)}


def test_every_metric_of_every_loss_is_defined_and_no_other() -> None:
    reported = set().union(*(names([{"type": kind}]) for kind in LossKind))
    reported |= {"rewards/margins"}  # of unpaired rows it is made of two others
    assert documented("Metrics") == reported | TRAINER


@pytest.mark.parametrize("name", sorted(documented("Health alarms")))
def test_every_alarm_is_one_that_the_monitor_raises(name: str) -> None:
    source = (Path(__file__).parents[2] / "workers" / "health.py").read_text()
    assert f'"{name}"' in source
