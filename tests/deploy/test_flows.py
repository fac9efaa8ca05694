"""Who may speak to whom, as a table: what is not in it is refused."""

import pytest

from tests.deploy.flows import End, allowed, pods
from tests.deploy.rendered import EVERYTHING, RENDERED, rendered

API, CONTROLLER = "Deployment/plumbline-api", "Deployment/plumbline-controller"
MIGRATE, RESTORE = "Job/plumbline-migrate-0-1-0", "Job/plumbline-restore"
HEAD, POLICY, SERVING = (f"RayCluster/plumbline {one}" for one in ("head", "policy", "serving"))
CONTROL, REFERENCE, SHARED = (f"RayCluster/plumbline {one}" for one in ("control", "reference", "shared"))
POSTGRES, REDIS = "StatefulSet/plumbline-postgres", "StatefulSet/plumbline-redis"

OUTSIDE = {
    "ingress": End(namespace="ingress-nginx"),
    "prometheus": End((("app.kubernetes.io/name", "prometheus"),), "monitoring"),
    "grafana": End((("app.kubernetes.io/name", "grafana"),), "monitoring"),
    "stranger": End((("app.kubernetes.io/component", "api"), ("app.kubernetes.io/name", "plumbline")), "default"),
    "dns": End((("k8s-app", "kube-dns"),), "kube-system"),
    "hub": End(address="93.184.216.34"),
    "metadata": End(address="169.254.169.254"),
    "private": End(address="10.1.2.3"),
}
PORTS = (53, 80, 443, 5432, 6379, 6443, 8000, 8265, 8700, 8080, 9700, 10001)

CONTROL_PLANE = {API, CONTROLLER, MIGRATE, RESTORE}
# Who fetches models and rows: the drivers, and the engines.
FETCHING = {API, CONTROLLER, CONTROL, SERVING, SHARED}
OF_ANYBODY = set(OUTSIDE) - {"metadata"}  # an address may be anybody's


def table(overlay: str, ends: set[str]) -> set[tuple[str, str, int]]:
    """The flows between these ends, of an overlay or of the one with everything."""
    ray = {one for one in ends if one.startswith("RayCluster/")}
    flows = {
        *((pod, "dns", 53) for pod in ends - set(OUTSIDE)),
        *((one, HEAD, port) for one in (API, CONTROLLER) for port in (8265, 8000)),
        *((one, other, port) for one in ray for other in ray for port in PORTS),
        *((one, API, 8700) for one in {CONTROLLER} | ray),
        *((one, "hub", 443) for one in FETCHING),
    }
    if POSTGRES in ends:
        flows |= {(one, POSTGRES, 5432) for one in CONTROL_PLANE}
    else:
        flows |= {(one, other, 5432) for one in CONTROL_PLANE for other in OF_ANYBODY}
    if REDIS in ends:
        flows |= {(HEAD, REDIS, 6379)}
    if overlay == EVERYTHING:
        flows |= {("ingress", API, 8700), ("prometheus", API, 8700), ("prometheus", CONTROLLER, 9700)}
        flows |= {("prometheus", one, 8080) for one in ray}
    if overlay == "gpu-autoscale":  # the API server, which is asked for pods
        flows |= {(HEAD, other, port) for other in OF_ANYBODY for port in (443, 6443)}
    return {(one, other, port) for one, other, port in flows if {one, other} <= ends and one != other}


@pytest.mark.parametrize("overlay", RENDERED)
def test_the_flows_are_those_of_the_table_and_no_others(overlay: str) -> None:
    objects = rendered(overlay)
    ends = pods(objects) | OUTSIDE
    inside = set(ends) - set(OUTSIDE)
    found = {
        (one, other, port)
        for one, source in ends.items()
        for other, target in ends.items()
        for port in PORTS
        if {one, other} & inside and one != other and allowed(objects, source, target, port)
    }
    assert found == table(overlay, set(ends))


def test_names_are_resolved_over_udp_too() -> None:
    objects = rendered(EVERYTHING)
    assert allowed(objects, pods(objects)[API], OUTSIDE["dns"], 53, "UDP")
    assert not allowed(objects, pods(objects)[API], OUTSIDE["hub"], 53, "UDP")


@pytest.mark.parametrize("overlay", ["gpu", "gpu-autoscale"])
def test_an_external_database_is_reached_and_the_metadata_service_is_not(overlay: str) -> None:
    objects = rendered(overlay)
    for name, pod in pods(objects).items():
        assert allowed(objects, pod, OUTSIDE["private"], 5432) == (name in {API, CONTROLLER, MIGRATE}), name
        for port in PORTS:
            assert not allowed(objects, pod, OUTSIDE["metadata"], port), name


def test_only_a_head_that_scales_reaches_the_api_server() -> None:
    for overlay, reached in (("gpu", set()), ("gpu-autoscale", {HEAD})):
        objects = rendered(overlay)
        found = {name for name, pod in pods(objects).items() if allowed(objects, pod, OUTSIDE["private"], 6443)}
        assert found == reached
