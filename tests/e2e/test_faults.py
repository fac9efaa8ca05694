"""What is killed comes back, what is cancelled is gone, what fails says why."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file, save_file

from api.cli.client import Client
from tests.e2e.conftest import Plumbline
from tests.e2e.scenario import (
    event,
    events,
    finished,
    living_actors,
    metrics,
    reached,
    spec,
    state,
    subset,
    wait_for,
)
from tests.models import make_model

STEPS = 400  # enough that the fault comes in the middle


@pytest.fixture(scope="module")
def model(plumbline: Plumbline) -> Path:
    return make_model(plumbline.model_root / "faults")


@pytest.fixture(scope="module")
def file_id(plumbline: Plumbline, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = subset(tmp_path_factory.mktemp("data") / "pairs.jsonl.gz", 80)
    with Client(plumbline.url, plumbline.key) as client:
        found: str = client.upload(path)["id"]
        return found


def test_api_and_controller_killed_in_mid_training_lose_nothing(
    plumbline: Plumbline, client: Client, model: Path, file_id: str
) -> None:
    job_id = client.submit(spec(model, file_id, max_steps=STEPS, epochs=100))["id"]
    reached(client, job_id, 10)
    plumbline.controller.kill()
    plumbline.api.kill()
    time.sleep(3)  # reports pile up
    plumbline.start_api()
    plumbline.controller.start()

    job = finished(client, job_id)
    assert job["attempts"] == 1
    numbers = [one["number"] for one in events(client, job_id)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len({(one["type"], one["stage"], one["message"]) for one in events(client, job_id)}) == len(numbers)
    assert [metric["step"] for metric in metrics(client, job_id)] == list(range(1, STEPS + 1))


def test_cancel_while_training_leaves_no_actor(plumbline: Plumbline, client: Client, model: Path, file_id: str) -> None:
    job_id = client.submit(spec(model, file_id, max_steps=STEPS * 100, epochs=1000))["id"]
    reached(client, job_id, 3)
    assert living_actors(plumbline.ray)
    client.cancel(job_id)
    wait_for("the cancel", lambda: state(client, job_id) == "cancelled", timeout_s=15)
    assert living_actors(plumbline.ray) == []
    assert not (plumbline.home / "storage" / "models" / job_id).exists()


def test_a_killed_training_worker_resumes_from_its_checkpoint(
    plumbline: Plumbline, client: Client, model: Path, file_id: str
) -> None:
    job_id = client.submit(spec(model, file_id, max_steps=STEPS, epochs=100, checkpoint_every=20))["id"]
    reached(client, job_id, 50)
    (worker,) = [a for a in living_actors(plumbline.ray) if a["class_name"].endswith("RayTrainWorker")]
    before = {m["step"]: m["values"]["loss"] for m in metrics(client, job_id)}
    assert "RayTrainWorker" in psutil.Process(worker["pid"]).name() + " ".join(psutil.Process(worker["pid"]).cmdline())
    os.kill(worker["pid"], signal.SIGKILL)

    finished(client, job_id)
    resumed = event(client, job_id, "train.started")["data"]["resumed_from_step"]
    assert resumed >= 20  # Ray takes note of a checkpoint within two seconds, in which these steps are many
    assert resumed % 20 == 0
    after = {m["step"]: m["values"]["loss"] for m in metrics(client, job_id)}
    assert sorted(after) == list(range(1, STEPS + 1))
    repeated = [step for step in before if step > resumed]
    assert [after[step] for step in repeated] == [before[step] for step in repeated]  # to the bit


def test_a_failure_inside_the_attempt_reaches_the_job_with_its_stage_and_log(
    plumbline: Plumbline, client: Client, file_id: str
) -> None:
    broken = make_model(plumbline.model_root / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    job_id = client.submit(spec(broken, file_id) | {"losses": [{"type": "simpo"}]})["id"]
    wait_for("the failure", lambda: state(client, job_id) == "failed")
    error = client.job(job_id)["error"]
    assert (error["code"], error["stage"], error["fault"]) == ("non_finite_loss", "train", "user")
    assert "at step 1" in error["message"]
    assert error["log_tail"]
    assert client.job(job_id)["attempts"] == 1  # nothing would be better the next time
