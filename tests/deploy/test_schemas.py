"""Every object is what the API server takes, by strict schemas: a field it does not know is refused."""

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions

from tests.deploy.rendered import RENDERED, Json, of_kind, rendered

CRDS = Path(__file__).parents[3] / "shared" / "crds"
RAY = ("RayCluster",)
PROMETHEUS = ("PodMonitor", "PrometheusRule")  # their CRDs are not at hand: test_monitoring looks at what they say


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


VERSIONS = [one for one in all_versions() if _number(one) >= (1, 30)]


def test_the_schemas_reach_from_1_30_to_the_newest() -> None:
    assert [_number(VERSIONS[0]), max(map(_number, VERSIONS))] == [
        (1, 30),
        _number(kubernetes_validate.latest_version()),
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", RENDERED)
def test_every_object_is_valid(overlay: str, version: str) -> None:
    for one in rendered(overlay):
        if one["kind"] not in RAY + PROMETHEUS:
            kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.skipif(not CRDS.is_dir(), reason="KubeRay's CRDs are handed to the tests beside the checkout")
@pytest.mark.parametrize("overlay", RENDERED)
def test_the_ray_cluster_is_valid(overlay: str) -> None:
    definition = yaml.safe_load((CRDS / "ray.io_rayclusters.yaml").read_text())
    (version,) = (one for one in definition["spec"]["versions"] if one["name"] == "v1")
    schema = strict(version["schema"]["openAPIV3Schema"])
    (cluster,) = of_kind(rendered(overlay), "RayCluster")
    jsonschema.Draft202012Validator(schema).validate(cluster)
    with pytest.raises(jsonschema.ValidationError, match="rayVersoin"):
        jsonschema.Draft202012Validator(schema).validate(cluster | {"spec": cluster["spec"] | {"rayVersoin": "1"}})


def strict(schema: Json) -> Json:
    """A structural schema of a CRD as JSON Schema that refuses fields it does not name."""
    made: dict[str, Any] = dict(schema)
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("type", None)
        made["type"] = ["integer", "string"]
        made.pop("anyOf", None)
    properties = made.get("properties")
    if properties is not None:
        made["properties"] = {name: strict(one) for name, one in properties.items()}
        defaults = {name for name, one in properties.items() if "default" in one}
        if "required" in made:
            made["required"] = [name for name in made["required"] if name not in defaults]
        is_object_meta = set(properties) >= {"annotations", "finalizers"}
        if not made.get("x-kubernetes-preserve-unknown-fields") and not is_object_meta:
            made["additionalProperties"] = False
    elif isinstance(made.get("additionalProperties"), dict):
        made["additionalProperties"] = strict(made["additionalProperties"])
    if isinstance(made.get("items"), dict):
        made["items"] = strict(made["items"])
    return made
