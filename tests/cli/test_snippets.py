"""The snippets of a job, each run as its reader would run it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from api.client import Client
from service.settings import Settings
from service.spec import AlignmentJob
from tests.cli.conftest import ROW, plumbline

ODD = 'it\'s "quoted" $HOME `id` \\ 1e-6: #\n<b>'


@pytest.fixture
def wanted(client: Client, control_plane: Settings, tmp_path: Path) -> dict[str, Any]:
    """A job with values that a shell, Python or YAML might take for something else."""
    (tmp_path / "pairs.jsonl").write_text(ROW)
    file = client.files.upload(tmp_path / "pairs.jsonl")
    return {
        "name": ODD,
        "model": str(control_plane.home / "tiny"),
        "data": {"train": file.id},
        "losses": [{"type": "sigmoid", "beta": 1e-6}, {"type": "sft", "weight": 0.5}],
        "training": {"learning_rate": 2e-7, "method": {"type": "full"}, "max_steps": None},
        "metadata": {"no": "off", "yes": "1_000"},
        "serve": False,
    }


def ran(command: list[str], settings: Settings, client: Client) -> str:
    key = (settings.home / "api-key").read_text()
    environment = os.environ | {"PLUMBLINE_URL": client.url, "PLUMBLINE_API_KEY": key}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return re.findall(r"job-[0-9a-f]{21}", done.stdout)[0]


def test_each_snippet_makes_the_job_that_the_form_describes(
    client: Client, local: Settings, wanted: dict[str, Any], tmp_path: Path
) -> None:
    told = client.schema.snippets(wanted)
    assert told.body == wanted
    (tmp_path / "job.yaml").write_text(told.yaml)
    by_curl = ran(["sh", "-c", told.curl], local, client)
    by_python = ran([sys.executable, "-c", told.python], local, client)
    status, out, err = plumbline("submit", str(tmp_path / "job.yaml"))
    assert status == 0, err
    by_yaml = out.splitlines()[0]

    spec = AlignmentJob.model_validate(wanted)
    made = [AlignmentJob.model_validate(client.jobs.get(one).spec) for one in (by_curl, by_python, by_yaml)]
    assert made == [spec] * 3


def test_a_model_with_more_than_a_name_keeps_it(client: Client, wanted: dict[str, Any]) -> None:
    from_scratch = wanted | {"model": {"source": wanted["model"], "weights": "random"}, "losses": [{"type": "sft"}]}
    assert client.schema.snippets(from_scratch).body["model"] == from_scratch["model"]
