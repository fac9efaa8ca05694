"""docs/metrics.md defines what a run reports: no name is missing, none is made up."""

import re
from pathlib import Path
from typing import Any

from service.spec import AlignmentJob, LossKind
from tests.workers.test_health import FAULTS
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


def test_the_alarms_on_the_page_are_those_that_are_seen_to_be_raised() -> None:
    assert documented("Health alarms") == {name for name, _ in FAULTS}
