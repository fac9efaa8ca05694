"""What is killed comes back, what is cancelled is gone, what fails says why."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file, save_file

from api.client import Client
from service.spec.pools import Pool
from tests.e2e.conftest import Plumbline
from tests.e2e.scenario import (
    drain,
    event,
    events,
    finished,
    living_actors,
    living_nodes,
    metrics,
    reached,
    spec,
    state,
    subset,
    wait_for,
)
from tests.models import make_model

STEPS = 400  # enough that the fault comes in the middle
FEWER = 160  # where a restart of workers is part of the run
TRAINERS = ("SoloTrainer", "RayTrainWorker")


@pytest.fixture(scope="module")
def model(plumbline: Plumbline) -> Path:
    return make_model(plumbline.model_root / "faults")


@pytest.fixture(scope="module")
def file_id(plumbline: Plumbline, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = subset(tmp_path_factory.mktemp("data") / "pairs.jsonl.gz", 80)
    with Client(plumbline.url, plumbline.key) as client:
        found: str = client.files.upload(path).id
        return found


def test_api_and_controller_killed_in_mid_training_lose_nothing(
    plumbline: Plumbline, client: Client, model: Path, file_id: str
) -> None:
    job_id = client.jobs.create(spec(model, file_id, max_steps=STEPS, epochs=100)).id
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


def test_pause_and_cancel_while_training_leave_no_actor(
    plumbline: Plumbline, client: Client, model: Path, file_id: str
) -> None:
    job_id = client.jobs.create(spec(model, file_id, max_steps=STEPS * 100, epochs=1000)).id
    reached(client, job_id, 3)
    assert living_actors(plumbline.ray)
    client.jobs.pause(job_id)
    wait_for("the pause", lambda: state(client, job_id) == "paused", timeout_s=60)
    assert living_actors(plumbline.ray) == []
    paused_at = max(one["step"] for one in metrics(client, job_id))
    client.jobs.resume(job_id)
    reached(client, job_id, paused_at + 1)
    assert event(client, job_id, "train.started")["data"]["resumed_from_step"] == paused_at
    client.jobs.cancel(job_id)
    wait_for("the cancel", lambda: state(client, job_id) == "cancelled", timeout_s=15)
    assert living_actors(plumbline.ray) == []
    assert not (plumbline.home / "storage" / "models" / job_id).exists()


def test_one_of_two_workers_is_killed_and_both_go_on_from_their_checkpoint(
    plumbline: Plumbline, client: Client, model: Path, file_id: str
) -> None:
    asked = spec(model, file_id, max_steps=FEWER, epochs=100, checkpoint_every=20, parallelism="fsdp")
    job_id = client.jobs.create(asked | {"resources": {"policy": {"workers": 2}}}).id
    before, resumed = kill_one_worker(plumbline, client, job_id, count=2)
    after = {m["step"]: m["values"]["loss"] for m in metrics(client, job_id)}
    assert sorted(after) == list(range(1, FEWER + 1))
    repeated = [step for step in before if step > resumed]
    assert [after[step] for step in repeated] == [before[step] for step in repeated]  # to the bit
    assert client.jobs.get(job_id).attempts == 1
    path = Path(event(client, job_id, "model.published")["data"]["path"])
    assert (path / "model-00001-of-00001.safetensors").exists()  # gathered from slices


@pytest.mark.parametrize("workers", [1, 2])
def test_past_max_failures_the_attempt_ends_with_a_typed_error_and_the_next_one_goes_on(
    plumbline: Plumbline, client: Client, model: Path, file_id: str, workers: int
) -> None:
    asked = spec(model, file_id, max_steps=FEWER, epochs=100, checkpoint_every=20, parallelism="ddp")
    asked["resources"] = {"policy": {"workers": workers}, "max_failures": 0}
    job_id = client.jobs.create(asked).id
    before, resumed = kill_one_worker(plumbline, client, job_id, count=workers)
    after = {m["step"]: m["values"]["loss"] for m in metrics(client, job_id)}
    assert [after[step] for step in before if step > resumed] == [before[step] for step in before if step > resumed]
    assert client.jobs.get(job_id).attempts == 2
    said = [one["data"].get("code") or one["message"] for one in events(client, job_id)]
    assert any("training_workers_failed" in one or "Training workers failed" in one for one in said), said


@pytest.mark.parametrize("workers", [1, 2])
def test_training_leaves_a_node_that_is_drained_and_repeats_no_step(
    plumbline: Plumbline, client: Client, model: Path, file_id: str, workers: int
) -> None:
    plumbline.ray.add(Pool.POLICY)
    asked = spec(model, file_id, max_steps=STEPS, epochs=100, checkpoint_every=1000)
    asked["resources"] = {"policy": {"workers": workers}, "max_failures": 0}
    job_id = client.jobs.create(asked).id
    reached(client, job_id, 20)
    node_id = next(a["node_id"] for a in living_actors(plumbline.ray) if a["class_name"].endswith(TRAINERS))
    drain(plumbline.ray, node_id)

    assert finished(client, job_id)["attempts"] == 1
    moved = event(client, job_id, "train.moved")
    resumed = event(client, job_id, "train.started")["data"]["resumed_from_step"]
    assert f"after step {resumed}" in moved["message"]
    told = [one for one in events(client, job_id) if one["type"] == "checkpoint.saved"]
    assert [one["data"]["step"] for one in told] == [resumed]  # no other one was due
    assert [metric["step"] for metric in metrics(client, job_id)] == list(range(1, STEPS + 1))
    wait_for("the end of the node", lambda: node_id not in living_nodes(plumbline.ray))


def kill_one_worker(plumbline: Plumbline, client: Client, job_id: str, count: int) -> tuple[dict[int, float], int]:
    """Kill a training worker in mid-run and wait for the end of the job. Returns the losses that were told before, and
    the step it went on from."""
    reached(client, job_id, 50)
    of_class = "SoloTrainer" if count == 1 else "RayTrainWorker"
    workers = [a for a in living_actors(plumbline.ray) if a["class_name"].endswith(of_class)]
    assert len(workers) == count
    wait_for("a checkpoint", lambda: any(one["type"] == "checkpoint.saved" for one in events(client, job_id)))
    saved = event(client, job_id, "checkpoint.saved")["data"]["step"]
    before = {m["step"]: m["values"]["loss"] for m in metrics(client, job_id)}
    assert of_class in " ".join(psutil.Process(workers[-1]["pid"]).cmdline())
    os.kill(workers[-1]["pid"], signal.SIGKILL)

    finished(client, job_id)
    resumed: int = event(client, job_id, "train.started")["data"]["resumed_from_step"]
    assert resumed >= saved  # what was told is there
    assert resumed % 20 == 0
    return before, resumed


def test_a_failure_inside_the_attempt_reaches_the_job_with_its_stage_and_log(
    plumbline: Plumbline, client: Client, file_id: str
) -> None:
    broken = make_model(plumbline.model_root / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    job_id = client.jobs.create(spec(broken, file_id) | {"losses": [{"type": "simpo"}]}).id
    wait_for("the failure", lambda: state(client, job_id) == "failed")
    error = client.jobs.get(job_id).error
    assert error is not None
    assert (error.code, error.stage, error.fault) == ("non_finite_loss", "train", "user")
    assert "at step 1" in error.message
    assert error.log_tail
    assert client.jobs.get(job_id).attempts == 1  # nothing would be better the next time
