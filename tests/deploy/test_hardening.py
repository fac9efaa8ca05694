"""What a `restricted` namespace and a careful reviewer ask of every pod."""

import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from tests.deploy.rendered import (
    DEPLOY,
    EVERYTHING,
    RENDERED,
    Json,
    containers,
    named,
    of_kind,
    pod_templates,
    rendered,
)

RAY = Path(sys.executable).with_name("ray")
QUANTITY = re.compile(r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")


@pytest.mark.parametrize("overlay", RENDERED)
def test_pods_run_as_nobody_special(overlay: str) -> None:
    for whose, template in pod_templates(rendered(overlay)):
        context = template["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True, whose
        assert context["runAsUser"] > 0, whose
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, whose
        for container in containers(template):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, whose
            assert own["readOnlyRootFilesystem"] is True, whose
            assert own["capabilities"] == {"drop": ["ALL"]}, whose
            assert "privileged" not in own, whose


@pytest.mark.parametrize("overlay", RENDERED)
def test_only_a_head_that_scales_has_an_account_of_the_api_server(overlay: str) -> None:
    scales = of_kind(rendered(overlay), "RayCluster")[0]["spec"].get("enableInTreeAutoscaling", False)
    for whose, template in pod_templates(rendered(overlay)):
        assert template["spec"]["automountServiceAccountToken"] is (scales and whose.endswith(" head")), whose
    assert all(one["automountServiceAccountToken"] is False for one in of_kind(rendered(overlay), "ServiceAccount"))


@pytest.mark.parametrize("overlay", RENDERED)
def test_every_container_says_what_it_needs_and_may_have(overlay: str) -> None:
    every = [(whose, one["resources"]) for whose, pod in pod_templates(rendered(overlay)) for one in containers(pod)]
    for cluster in of_kind(rendered(overlay), "RayCluster"):
        if options := cluster["spec"].get("autoscalerOptions"):
            every.append(("autoscaler", options["resources"]))
            assert options["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert options["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for whose, resources in every:
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(resources[kind]), whose
            assert all(QUANTITY.match(str(value)) for value in resources[kind].values()), whose
        gpus = [resources[kind].get("nvidia.com/gpu") for kind in ("requests", "limits")]
        assert gpus[0] == gpus[1], whose


@pytest.mark.parametrize("overlay", RENDERED)
def test_what_can_be_written_has_a_size(overlay: str) -> None:
    for whose, template in pod_templates(rendered(overlay)):
        for volume in template["spec"].get("volumes", []):
            assert set(volume) <= {"name", "persistentVolumeClaim", "emptyDir"}, whose  # no path of the node
            if "emptyDir" in volume:
                assert QUANTITY.match(volume["emptyDir"]["sizeLimit"]), whose


@pytest.mark.parametrize("overlay", RENDERED)
def test_images_have_an_exact_version(overlay: str) -> None:
    for whose, template in pod_templates(rendered(overlay)):
        for container in containers(template):
            _, _, tag = container["image"].rpartition(":")
            assert re.match(r"^[0-9]+\.[0-9]+", tag), f"{whose}: {container['image']}"


@pytest.mark.parametrize("overlay", RENDERED)
def test_ray_is_the_same_everywhere(overlay: str) -> None:
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    pins = {
        found[1]
        for extra in ("cpu", "gpu")
        for line in project["optional-dependencies"][extra]
        if (found := re.match(r"ray\[.*\]==(.+)", line))
    }
    (cluster,) = of_kind(rendered(overlay), "RayCluster")
    assert {cluster["spec"]["rayVersion"]} == pins
    images = {
        one["image"] for whose, pod in pod_templates(rendered(overlay)) if "Ray" in whose for one in containers(pod)
    }
    assert len(images) == 1  # one build of Ray, torch and vLLM for all pods


def test_the_api_is_probed_spread_and_kept_up() -> None:
    objects = rendered("gpu")
    deployment = named(objects, "Deployment", "plumbline-api")
    assert deployment["spec"]["replicas"] == 2
    spec = deployment["spec"]["template"]["spec"]
    assert spec["topologySpreadConstraints"]
    (container,) = spec["containers"]
    paths = {
        probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert paths == {"startupProbe": "/healthz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    assert {one["metadata"]["name"] for one in of_kind(objects, "PodDisruptionBudget")} == {
        "plumbline-api", "plumbline-controller",
    }  # fmt: skip


def test_a_controller_that_stands_still_is_started_again() -> None:
    deployment = named(rendered("gpu"), "Deployment", "plumbline-controller")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_nothing_writes_to_the_database_while_it_is_restored() -> None:
    objects = rendered(EVERYTHING)
    assert {one["spec"]["replicas"] for one in of_kind(objects, "Deployment")} == {0}
    job = named(objects, "Job", "plumbline-restore")["spec"]
    (migrate,), (restore,) = (job["template"]["spec"][of] for of in ("initContainers", "containers"))
    assert (migrate["args"], restore["args"][:2]) == (["db", "upgrade"], ["admin", "restore"])
    assert (job["backoffLimit"], job["template"]["spec"]["restartPolicy"]) == (0, "Never")


def test_api_and_controller_wait_for_the_schema() -> None:
    for name in ("plumbline-api", "plumbline-controller"):
        (wait,) = named(rendered("gpu"), "Deployment", name)["spec"]["template"]["spec"]["initContainers"]
        assert wait["args"][:5] == ["doctor", "--only", "database", "--only", "migrations"]
    (migration,) = of_kind(rendered("gpu"), "Job")
    assert migration["spec"]["backoffLimit"] >= 1000  # tries on while somebody mends what is wrong,
    assert "activeDeadlineSeconds" not in migration["spec"]
    volumes = migration["spec"]["template"]["spec"]["volumes"]
    assert not any("persistentVolumeClaim" in one for one in volumes)  # also without a storage class
    (wait,) = migration["spec"]["template"]["spec"]["initContainers"]
    assert wait["args"][:3] == ["doctor", "--only", "database"]


@pytest.mark.parametrize("overlay", ["gpu", "gpu-autoscale", "gpu-shared"])
def test_gpus_are_for_workers_and_head_and_drivers_are_elsewhere(overlay: str) -> None:
    settings = named(rendered(overlay), "ConfigMap", "plumbline-settings")["data"]
    assert settings["PLUMBLINE_SERVING_DEVICE"] == "gpu"  # of groups at zero nobody could tell
    (cluster,) = of_kind(rendered(overlay), "RayCluster")
    head = cluster["spec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    (term,) = head["template"]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term == {"matchExpressions": [{"key": "nvidia.com/gpu.present", "operator": "DoesNotExist"}]}
    for group in cluster["spec"]["workerGroupSpecs"]:
        template: Json = group["template"]
        resources = template["spec"]["containers"][0]["resources"]
        with_gpu = "nvidia.com/gpu" in resources["limits"]
        assert with_gpu == (group["labels"]["pool"] != "control")
        assert ("tolerations" in template["spec"]) == with_gpu
        assert with_gpu or template["spec"]["affinity"] == head["template"]["spec"]["affinity"]
        assert template["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
        if with_gpu:
            assert template["spec"]["terminationGracePeriodSeconds"] >= 120
    for _, template in pod_templates(tuple(one for one in rendered(overlay) if one["kind"] != "RayCluster")):
        assert "tolerations" not in template["spec"]


@pytest.mark.parametrize("overlay", RENDERED)
def test_who_fetches_from_the_hub_has_its_token(overlay: str) -> None:
    """Drivers, and engines whose weights are nowhere on the storage yet."""
    from service.spec.pools import Pool

    (cluster,) = of_kind(rendered(overlay), "RayCluster")
    for pool in (Pool.CONTROL, Pool.SERVING):
        groups = [one for one in cluster["spec"]["workerGroupSpecs"] if one["labels"]["pool"] in pool.labels]
        assert groups
        for group in groups:
            (container,) = group["template"]["spec"]["containers"]
            assert "HF_TOKEN" in [one["name"] for one in container["env"]]


@pytest.mark.parametrize("overlay", RENDERED)
def test_a_worker_that_is_stopped_is_drained_within_its_grace_period(overlay: str) -> None:
    (cluster,) = of_kind(rendered(overlay), "RayCluster")
    for group in cluster["spec"]["workerGroupSpecs"]:
        spec = group["template"]["spec"]
        shell, option, script = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert (shell, option) == ("bash", "-c")
        subprocess.run([shell, "-n", option, script], check=True)
        drain, _ = script.split("&&", 1)
        seconds = [int(text) for text in re.findall(r"\b\d+\b", script)]
        assert max(seconds) <= spec["terminationGracePeriodSeconds"] - 30
        options = {word for word in drain.split() if word.startswith("--")}
        assert options <= set(help_of("drain-node").split())  # a hidden command of Ray's, which may change
        assert "&& ray health-check; do" in script  # no longer than there is a cluster to leave
        assert help_of("health-check")


@cache
def help_of(command: str) -> str:
    return subprocess.run([RAY, command, "--help"], capture_output=True, text=True, check=True).stdout


def test_the_pools_are_those_of_the_code() -> None:
    from service.spec.pools import SHARED, Pool

    for overlay in RENDERED:
        (cluster,) = of_kind(rendered(overlay), "RayCluster")
        labels = {group["labels"]["pool"] for group in cluster["spec"]["workerGroupSpecs"]}
        assert labels <= {SHARED, *Pool}
        assert all(labels & set(pool.labels) for pool in Pool), overlay


def test_groups_that_scale_begin_at_zero_and_a_job_starts_at_once() -> None:
    (cluster,) = of_kind(rendered("gpu-autoscale"), "RayCluster")
    assert cluster["spec"]["autoscalerOptions"]["version"] == "v2"
    for group in cluster["spec"]["workerGroupSpecs"]:
        least = 1 if group["groupName"] == "control" else 0
        assert (group["replicas"], group["minReplicas"]) == (least, least)
        assert group["maxReplicas"] > 1
    assert (
        named(rendered("gpu-autoscale"), "ConfigMap", "plumbline-settings")["data"]["PLUMBLINE_AUTOSCALING"] == "true"
    )


@pytest.mark.parametrize("overlay", RENDERED)
def test_the_operator_has_nothing_to_add_to_the_groups(overlay: str) -> None:
    """What it adds makes it the owner of the whole list, and a second `kubectl apply --server-side` is refused."""
    (cluster,) = of_kind(rendered(overlay), "RayCluster")
    assert all(group["scaleStrategy"] == {} for group in cluster["spec"]["workerGroupSpecs"])


def test_the_autoscaler_writes_where_its_home_is() -> None:
    (cluster,) = of_kind(rendered("gpu-autoscale"), "RayCluster")
    volumes = {one["name"] for one in cluster["spec"]["headGroupSpec"]["template"]["spec"]["volumes"]}
    (mount,) = cluster["spec"]["autoscalerOptions"]["volumeMounts"]
    assert mount["mountPath"] == "/tmp"
    assert mount["name"] in volumes
    assert "ray-logs" in volumes  # or the operator would add it, without a limit


def test_no_shell_of_ray_is_let_in_from_outside() -> None:
    for ingress in of_kind(rendered(EVERYTHING), "Ingress"):
        for rule in ingress["spec"]["rules"]:
            assert {path["backend"]["service"]["name"] for path in rule["http"]["paths"]} == {"plumbline-api"}
    assert Path(DEPLOY / "README.md").exists()
