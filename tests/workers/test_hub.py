"""Models on the Hugging Face Hub, from a stand-in that the real client asks (tests.workers.hub_server)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.workers.hub_server import COMMIT, Contents, Repository, hub
from tests.workers.training_runs import make_job

LATER = "beef" + "0" * 36
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "pytorch_model.bin": b"code in a pickle"}
SCRIPT = """
import json, sys
from pathlib import Path
from service.spec import AlignmentJob, Storage
from workers.errors import AttemptError
from workers.hub import copy_of, pin
try:
    job = pin(AlignmentJob.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
    paths = [str(copy_of(one, Storage(Path(sys.argv[3])))) for one in (job.model, job.reference) if one]
    print(json.dumps({"models": [one.source for one in (job.model, job.reference) if one], "paths": paths}))
except AttemptError as error:
    print(json.dumps({"code": error.code, "fault": error.fault}))
"""


def fetch(url: str, root: Path, run: str = "run", **models: str) -> Any:
    """What an attempt of the job that has the directory `run` gets. In a process of its own, since huggingface_hub
    reads HF_ENDPOINT once, when it is imported."""
    environment = os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(root / "home"), "HF_HUB_OFFLINE": "0"}
    job = make_job().model_dump() | (models or {"model": "hf:team/model"})
    command = [sys.executable, "-c", SCRIPT, json.dumps(job), str(root / run), str(root)]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


@pytest.fixture
def contents() -> Contents:
    return Contents(models={"team/model": Repository.of(FILES)})


def test_every_attempt_of_a_job_gets_what_the_name_meant_to_the_first(tmp_path: Path, contents: Contents) -> None:
    with hub(contents) as server:
        first = fetch(server.url, tmp_path)
        contents.models["team/model"].push(LATER, FILES | {"model.safetensors": b"other weights"})
        assert fetch(server.url, tmp_path) == first
        other = fetch(server.url, tmp_path, "other")
    assert first["models"] == [f"hf:team/model@{COMMIT}"]
    assert other["models"] == [f"hf:team/model@{LATER}"]
    there, later = (Path(one["paths"][0]) / "model.safetensors" for one in (first, other))
    assert (there.read_bytes(), later.read_bytes()) == (b"weights", b"other weights")


def test_no_file_is_fetched_that_could_be_code(tmp_path: Path, contents: Contents) -> None:
    with hub(contents) as server:
        fetch(server.url, tmp_path)
    assert sorted(contents.downloads) == ["config.json", "model.safetensors"]


def test_a_copy_that_is_whole_needs_no_hub(tmp_path: Path, contents: Contents) -> None:
    with hub(contents) as server:
        first = fetch(server.url, tmp_path)
        contents.is_closed = True
        assert fetch(server.url, tmp_path) == first
        assert fetch(server.url, tmp_path, "other", model=f"hf:team/model@{COMMIT}") == first


def test_a_copy_that_broke_off_is_completed_and_not_used_before(tmp_path: Path, contents: Contents) -> None:
    with hub(contents) as server:
        path = Path(fetch(server.url, tmp_path)["paths"][0])
        (path / ".whole").unlink()  # as if the process had died
        (path / "model.safetensors").unlink()
        contents.is_closed = True
        assert fetch(server.url, tmp_path) == {"code": "model_unreachable", "fault": "system"}
        contents.is_closed = False
        fetch(server.url, tmp_path)
    assert (path / "model.safetensors").read_bytes() == b"weights"


def test_a_reference_is_pinned_as_the_model_is(tmp_path: Path, contents: Contents) -> None:
    contents.models["team/reference"] = Repository.of(FILES)
    with hub(contents) as server:
        told = fetch(server.url, tmp_path, model="hf:team/model", reference="hf:team/reference@main")
    assert told["models"] == [f"hf:team/model@{COMMIT}", f"hf:team/reference@{COMMIT}"]


def test_what_is_not_there_is_the_clients_and_a_hub_that_fails_is_ours(tmp_path: Path, contents: Contents) -> None:
    not_found, unreachable = (
        {"code": "model_not_found", "fault": "user"},
        {"code": "model_unreachable", "fault": "system"},
    )
    with hub(contents) as server:
        assert fetch(server.url, tmp_path, model="hf:team/other") == not_found
        assert fetch(server.url, tmp_path, model="hf:team/model@nowhere") == not_found
        assert fetch(server.url, tmp_path, model=f"hf:team/model@{LATER}") == not_found
        contents.is_closed = True
        assert fetch(server.url, tmp_path, model="hf:team/model") == unreachable
    assert fetch(server.url, tmp_path, model="hf:team/model") == unreachable
