"""Jobs on rows that are no pairs, from the file to the trained model."""

import csv
import json
import math
from pathlib import Path

import httpx
import pytest

from api.client import Client
from tests.e2e.conftest import Plumbline
from tests.e2e.scenario import event, finished, metrics, spec
from tests.models import make_model
from tests.workers.hub_server import COMMIT, Repository


@pytest.fixture(scope="module")
def model(plumbline: Plumbline) -> Path:
    return make_model(plumbline.model_root / "shapes")


def test_kto_and_bco_learn_from_labelled_answers_on_a_model_of_the_hub(
    plumbline: Plumbline, client: Client, model: Path, tmp_path: Path
) -> None:
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    plumbline.hub.models["team/shapes"] = Repository.of(files)
    path = tmp_path / "thumbs.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", "completion", "label", "weight"])
        for i in range(32):
            rows.writerow([f"What is {i}?", f"It is {i}.", "true", 1])
            rows.writerow([f"What is {i}?", "No.", "false", 2])
    asked = spec(model, client.files.upload(path).id, max_steps=6, checkpoint_every=2) | {"model": "hf:team/shapes"}
    asked["losses"] = [{"type": "kto"}, {"type": "bco", "weight": 0.5}, {"type": "sft", "weight": 0.1}]
    asked["evaluation"] = {"every": 3}
    job = finished(client, client.jobs.create(asked).id)

    steps = metrics(client, job["id"])
    assert steps[0]["values"]["loss/kto"] == pytest.approx(0.5, abs=1e-4)  # the policy is its reference
    assert steps[0]["values"]["loss/bco"] == pytest.approx(math.log(2), abs=1e-4)
    assert steps[0]["values"]["kto_kl"] == pytest.approx(0, abs=1e-4)
    assert steps[-1]["values"]["rewards/margins"] > 0
    assert [metric["step"] for metric in metrics(client, job["id"], "held_out")] == [3, 6]

    headers = {"Authorization": f"Bearer {plumbline.key}"}
    report = httpx.get(f"{plumbline.url}/v1/jobs/{job['id']}/data-report", headers=headers).json()
    assert (report["rows"], report["used"], report["bad"]) == (64, 64, 0)
    assert report["read_as"].startswith("standard")
    assert report == event(client, job["id"], "data.prepared")["data"]

    assert event(client, job["id"], "model.fetched")["data"]["commit"] == COMMIT
    published = Path(event(client, job["id"], "model.published")["data"]["path"])
    assert json.loads((published / "plumbline.json").read_text())["model"]["source"] == f"hf:team/shapes@{COMMIT}"
    card = (published / "README.md").read_text()
    assert "base_model: team/shapes\n" in card
    assert f"starting from `hf:team/shapes@{COMMIT}`" in card


def test_rankings_are_learnt_with_a_reference_that_follows_the_policy(
    client: Client, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ranked.jsonl"
    ranked = [{"prompt": f"What is {i}?", "ranked": [f"It is {i}.", f"{i}", "No."][: 2 + i % 2]} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in ranked))
    asked = spec(model, client.files.upload(path).id, max_steps=5, reference_sync={"alpha": 0.5, "every": 2})
    asked["losses"] = [{"type": "plackett_luce"}]
    job = finished(client, client.jobs.create(asked).id)

    assert set(job["progress"]) == {"prepare", "train", "evaluate", "publish"}  # no reference pass
    steps = [metric["values"] for metric in metrics(client, job["id"])]
    assert math.log(2) < steps[0]["loss"] < math.log(6)  # log k! of rankings of two and of three
    assert steps[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert steps[1]["rewards/margins"] > 0.01  # after a step, and before the reference has followed
