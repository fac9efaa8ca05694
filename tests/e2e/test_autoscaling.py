"""A job on a cluster that has no node for it yet: its demand brings them, idleness takes them away."""

from pathlib import Path

from api.client import Client
from tests.e2e.autoscaled import autoscaled
from tests.e2e.conftest import control_plane
from tests.e2e.scenario import finished, spec, subset, wait_for
from tests.models import make_model


def test_a_job_brings_the_nodes_that_it_needs_and_leaves_none_behind(tmp_path: Path) -> None:
    models = tmp_path / "models"
    model = make_model(models / "small")
    with autoscaled(tmp_path) as ray, control_plane(ray, tmp_path, models, PLUMBLINE_AUTOSCALING="true") as plumbline:
        assert ray.groups() == ["control"]
        with Client(plumbline.url, plumbline.key) as client:
            file_id = client.files.upload(subset(tmp_path / "pairs.jsonl.gz", 40)).id
            job_id = client.jobs.create(spec(model, file_id, max_steps=4)).id
            wait_for("a node of each pool", lambda: ray.groups() == ["control", "policy", "reference"])
            assert finished(client, job_id)["attempts"] == 1
            wait_for("the end of the idle nodes", lambda: ray.groups() == ["control"])

            client.deployments.create(job_id)
            wait_for("the models", lambda: client.deployments.get(job_id).state == "ready")
            assert ray.groups() == ["control", "serving"]
            client.deployments.delete(job_id)
            wait_for("the end of the idle node", lambda: ray.groups() == ["control"])
