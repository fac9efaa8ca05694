"""The script for a GPU runs from end to end on what there is, and says so where it cannot measure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment)


def test_a_tiny_model_goes_through_both_sides_of_both_tasks() -> None:
    done = run("--tiny")
    assert done.returncode == 0, done.stderr
    for task in ("reference", "train"):
        _, _, table = done.stdout.partition(f"{task}, profile lp")
        peer, ours, large, compiled = table.splitlines()[3:7]
        assert ours.startswith("| ours, 4,096 tokens a batch |")
        assert large.startswith("| ours, 16,384 |")
        assert compiled.startswith("| ours, 16,384, compiled |")
        assert {line.count("|") for line in (peer, ours, large, compiled)} == {7}
        assert peer.endswith("|  |")
        assert not any(line.endswith("|  |") for line in (ours, large, compiled))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_refuses_to_measure() -> None:
    done = run()
    assert done.returncode != 0
    assert "torch sees none here" in done.stderr
    assert not done.stdout
