"""The benchmark of scale runs from end to end, and its simulated cluster makes as much of the jobs as it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scale.py"


def run(*options: str) -> dict[str, dict[str, float]]:
    """The numbers of each line that it prints, by the line's name."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^  (.+?): (.*)$", done.stdout, re.MULTILINE)
    return {name: {key: float(value) for key, value in re.findall(r"(\w+) ([\d.]+)", told)} for name, told in lines}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_full_cluster_starts_nothing_and_an_empty_one_what_fits_on_it(database: str) -> None:
    found = run("--databases", database, "--only", "passes", "starts", "--sizes", "10:30")
    assert found["facts"] == {"looked_at": 30, "running": 8, "starts": 0}
    assert found["snapshot"]["statements"] == 5
    assert found["watch, all silent"]["statements"] == 1
    # Each takes a GPU of the one node for scorers, which has eight
    assert found["empty cluster of 10 nodes, filled"]["started"] == 8


def test_every_report_that_was_taken_is_stored_and_jobs_run_to_their_end() -> None:
    options = ("--attempts", "4", "--sizes", "10:30", "--seconds", "4", "--run-s", "1", "--report-every-s", "0.5")
    found = run("--databases", "sqlite", "--only", "reports", "whole", *options)
    reports = found["reports of 4 attempts at once"]
    assert reports["refused"] == 0
    assert reports["callbacks"] > 4
    assert reports["stored"] == reports["taken"] - 4  # each attempt's first word is an event
    last = [told for name, told in found.items() if name.startswith("after ")][-1]
    assert last["refused"] == 0
    assert sum(last.get(state, 0) for state in ("queued", "starting", "running", "succeeded")) == 60
    assert last.get("running", 0) + last["succeeded"] > 30  # that had ended before
    assert found["warnings of the controller"]["count"] == 0
