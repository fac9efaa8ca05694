"""`plumbline doctor` on a deployment that works, and on one whose parts do not see each other."""

import json
from typing import Any

from tests.e2e.conftest import Plumbline
from tests.s3_server import credentials


def told(plumbline: Plumbline, *arguments: str, **changed: str) -> dict[str, Any]:
    """By check; `changed` is what the control plane's environment has besides."""
    if changed:
        environment = plumbline.environment | changed
        plumbline = Plumbline(
            plumbline.url, plumbline.key, plumbline.home, plumbline.model_root, plumbline.ray, environment
        )
    lines = plumbline.cli("doctor", "--json", *arguments).stdout.splitlines()
    return {said["check"]: said for said in map(json.loads, lines)}


def test_a_deployment_that_works_is_well(plumbline: Plumbline) -> None:
    said = told(plumbline)
    assert {name: one["message"] for name, one in said.items() if one["verdict"] == "failed"} == {}
    assert "shares the storage, and reaches the API" in said["attempts"]["message"]
    assert not list((plumbline.home / "storage").glob(".doctor-*"))


def test_what_the_cluster_does_not_reach_is_told(plumbline: Plumbline) -> None:
    broken = {"PLUMBLINE_API_URL": "http://127.0.0.1:9", "PLUMBLINE_RAY_TOKEN": "another"}
    for name, said in (("PLUMBLINE_API_URL", "cannot reach http://127.0.0.1:9"), ("PLUMBLINE_RAY_TOKEN", "the token")):
        found = told(plumbline, "--only", "attempts", **{name: broken[name]})["attempts"]
        assert found["verdict"] == "failed"
        assert said in found["message"]
    here = told(plumbline, "--only", "api", PLUMBLINE_API_URL="http://127.0.0.1:9")["api"]
    assert (here["verdict"], "does not answer here" in here["message"]) == ("failed", True)


def test_a_bucket_that_only_the_control_plane_can_use_is_told(
    plumbline: Plumbline, s3_endpoint: str, empty_bucket: str
) -> None:
    ours = credentials(s3_endpoint) | {"PLUMBLINE_FILES_URL": empty_bucket}
    said = told(plumbline, "--only", "buckets", "--only", "attempts", **ours)
    assert said["buckets"]["verdict"] == "ok"
    assert said["attempts"]["verdict"] == "warning"
    assert f"reaches the API, but cannot use {empty_bucket} (" in said["attempts"]["message"]
