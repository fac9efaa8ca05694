"""What deploy/README.md tells to write is taken by kustomize, and does what it says."""

import re
from typing import Any

import yaml

from tests.deploy.rendered import DEPLOY, Json, named, of_kind, rendered, rendered_with

README = (DEPLOY / "README.md").read_text()


def block(with_text: str) -> Json:
    """The one piece of a kustomization that holds the text."""
    pieces = re.findall(r"(?:^    .*\n)+", README, re.MULTILINE)
    found = [piece for piece in pieces if with_text in piece and re.match("    (patches|images|components):", piece)]
    (piece,) = found
    said: dict[str, Any] = yaml.safe_load(piece)
    return said


def test_class_and_size_of_the_storage() -> None:
    claim = named(rendered_with(block("storageClassName")), "PersistentVolumeClaim", "plumbline-storage")["spec"]
    assert claim["storageClassName"] == "your-class"
    assert claim["resources"]["requests"]["storage"] == "2Ti"


def test_an_object_store_of_ones_own() -> None:
    data = named(rendered_with(block("PLUMBLINE_FILES_URL")), "ConfigMap", "plumbline-object-store")["data"]
    assert data["PLUMBLINE_FILES_URL"] == "s3://YOUR-BUCKET/files"
    assert data["PLUMBLINE_MODELS_URL"] == "s3://YOUR-BUCKET/models"


def test_a_cluster_that_reaches_nothing_outside() -> None:
    policies = {one["metadata"]["name"] for one in of_kind(rendered_with(block("internet-egress")), "NetworkPolicy")}
    assert "default-deny" in policies
    assert "internet-egress" not in policies


def test_settings_of_ones_own() -> None:
    data = named(rendered_with(block("KEEP_UPLOADS_DAYS")), "ConfigMap", "plumbline-settings")["data"]
    assert (data["PLUMBLINE_MAX_RUNNING_JOBS"], data["PLUMBLINE_KEEP_UPLOADS_DAYS"]) == ("32", "90")


def test_tags_of_ones_own_with_a_migration_of_their_name() -> None:
    objects = rendered_with(block("newTag"))
    (job,) = of_kind(objects, "Job")
    assert job["metadata"]["name"] == "plumbline-migrate-0-1-0-2"
    images = set(re.findall(r"registry.example.org/plumbline/[\w-]+:[\w.-]+", yaml.safe_dump_all(objects)))
    place = "registry.example.org/plumbline"
    assert images == {f"{place}/control-plane:0.1.0-2", f"{place}/worker:0.1.0-2-cuda"}
    assert "plumbline/worker:0.1.0-cuda" not in yaml.safe_dump_all(objects)


def test_a_group_of_another_size() -> None:
    (cluster,) = of_kind(rendered_with(block("maxReplicas")), "RayCluster")
    policy = next(one for one in cluster["spec"]["workerGroupSpecs"] if one["groupName"] == "policy")
    assert (policy["replicas"], policy["maxReplicas"]) == (2, 2)
    resources = policy["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"] == resources["limits"] == {"cpu": "24", "memory": "400Gi", "nvidia.com/gpu": "4"}


def test_the_sizes_that_are_told_are_those_that_are_asked_for() -> None:
    (cluster,) = of_kind(rendered("gpu"), "RayCluster")
    head = cluster["spec"]["headGroupSpec"]
    pods = {"head": head} | {f"`{one['groupName']}`": one for one in cluster["spec"]["workerGroupSpecs"]}
    told = {}
    for names, *sizes in re.findall(r"^\| (.+?) \| (\d+) \| (\d+) GiB \| (\d?) ?\|", README, re.MULTILINE):
        told |= dict.fromkeys(names.split(", "), sizes)
    asked = {}
    for name, pod in pods.items():
        requests = pod["template"]["spec"]["containers"][0]["resources"]["requests"]
        memory = requests["memory"].removesuffix("Gi")
        asked[name] = [requests["cpu"], memory, requests.get("nvidia.com/gpu", "")]
    assert told == asked


def test_a_registry_that_asks_for_a_password() -> None:
    accounts = of_kind(rendered_with(block("imagePullSecrets")), "ServiceAccount")
    assert {one["metadata"]["name"] for one in accounts} >= {"plumbline-control-plane", "plumbline-ray"}
    assert all(one["imagePullSecrets"] == [{"name": "YOUR-SECRET"}] for one in accounts)


def test_every_overlay_and_component_is_in_the_tables() -> None:
    for kind in ("overlays", "components"):
        for path in (DEPLOY / kind).iterdir():
            assert f"| `{path.name}` |" in README, path.name
