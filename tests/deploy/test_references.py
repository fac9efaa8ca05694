"""What is named is there: secrets, config maps, accounts, claims, ports, selectors, settings."""

import os
from typing import Any

import pytest

from service.settings import Settings
from tests.deploy.rendered import EVERYTHING, RENDERED, Json, containers, named, of_kind, pod_templates, rendered

# Made by whoever installs it, as deploy/README.md tells: name and keys.
SECRETS = {
    "plumbline-control-plane": {"secret", "database-url", "metrics-token"},
    "plumbline-ray-auth": {"auth_token"},
    "plumbline-redis": {"password"},
    "plumbline-postgres": {"password"},
    "plumbline-object-store": {"access-key-id", "secret-access-key"},
    "plumbline-tls": {"tls.crt", "tls.key"},
    "plumbline-hub": {"token"},
}


@pytest.mark.parametrize("overlay", RENDERED)
def test_secrets_and_config_maps_are_there_with_their_keys(overlay: str) -> None:
    objects = rendered(overlay)
    maps = {one["metadata"]["name"]: set(one["data"]) for one in of_kind(objects, "ConfigMap")}
    for whose, template in pod_templates(objects):
        for container in containers(template):
            for source in container.get("envFrom", []):
                assert source["configMapRef"]["name"] in maps, whose
            for variable in container.get("env", []):
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    assert reference["key"] in SECRETS[reference["name"]], whose
    for one in of_kind(objects, "Secret"):
        assert set(one["data"]) == SECRETS[one["metadata"]["name"]]


@pytest.mark.parametrize("overlay", RENDERED)
def test_no_secret_is_in_an_environment_by_value(overlay: str) -> None:
    hidden = ("SECRET", "TOKEN", "PASSWORD", "DATABASE_URL", "ACCESS_KEY")
    for whose, template in pod_templates(rendered(overlay)):
        for container in containers(template):
            for variable in container.get("env", []):
                if any(word in variable["name"] for word in hidden):
                    assert "secretKeyRef" in variable["valueFrom"], whose


@pytest.mark.parametrize("overlay", RENDERED)
def test_accounts_and_claims_are_there(overlay: str) -> None:
    objects = rendered(overlay)
    accounts = {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")}
    claims = {one["metadata"]["name"] for one in of_kind(objects, "PersistentVolumeClaim")}
    for whose, template in pod_templates(objects):
        assert template["spec"]["serviceAccountName"] in accounts, whose
        volumes = {one["name"] for one in template["spec"].get("volumes", [])}
        for volume in template["spec"].get("volumes", []):
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims, whose
        for stateful in of_kind(objects, "StatefulSet"):
            volumes |= {one["metadata"]["name"] for one in stateful["spec"].get("volumeClaimTemplates", [])}
        for container in containers(template):
            assert {one["name"] for one in container.get("volumeMounts", [])} <= volumes, whose


@pytest.mark.parametrize("overlay", RENDERED)
def test_selectors_find_pods_and_their_ports(overlay: str) -> None:
    objects = rendered(overlay)
    for service in of_kind(objects, "Service"):
        chosen = _chosen(objects, {"matchLabels": service["spec"]["selector"]})
        assert chosen, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            assert all(port["targetPort"] in _port_names(template) for template in chosen)
    for one in of_kind(objects, "PodDisruptionBudget"):
        assert _chosen(objects, one["spec"]["selector"]), one["metadata"]["name"]
    for monitor in of_kind(objects, "PodMonitor"):
        chosen = _chosen(objects, monitor["spec"]["selector"])
        assert chosen
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert all(endpoint["port"] in _port_names(template) for template in chosen), monitor["metadata"]["name"]
            if "authorization" in endpoint:
                credentials = endpoint["authorization"]["credentials"]
                assert credentials["key"] in SECRETS[credentials["name"]]
    for ingress in of_kind(objects, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                service = named(objects, "Service", backend["name"])
                assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
        assert all(one["secretName"] in SECRETS for one in ingress["spec"]["tls"])


@pytest.mark.parametrize("overlay", RENDERED)
def test_probes_name_ports_of_their_containers(overlay: str) -> None:
    for whose, template in pod_templates(rendered(overlay)):
        for container in containers(template):
            names = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                said = container.get(probe, {})
                for action in ("httpGet", "tcpSocket"):
                    if action in said:
                        assert said[action]["port"] in names, whose


@pytest.mark.parametrize("overlay", RENDERED)
def test_the_settings_are_settings_and_production_takes_them(overlay: str) -> None:
    data = named(rendered(overlay), "ConfigMap", "plumbline-settings")["data"]
    given = {name.removeprefix("PLUMBLINE_").lower(): value for name, value in data.items()}
    assert set(given) <= set(Settings.model_fields)
    values: dict[str, Any] = given | {"secret": "x", "database_url": "postgresql+asyncpg://u:p@h/d"}
    settings = Settings(**values)
    assert settings.environment == "production"
    service = named(rendered(overlay), "Service", "plumbline-api")
    assert settings.callback_url == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    cluster = of_kind(rendered(overlay), "RayCluster")[0]["metadata"]["name"]
    assert settings.ray_url == f"http://{cluster}-head-svc:8265"  # as KubeRay names the head's Service


def test_the_settings_of_an_object_store_are_settings_and_reach_who_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PLUMBLINE_")]:
        monkeypatch.delenv(name)  # a pod has the settings it is given alone
    objects = rendered(EVERYTHING)
    data = named(objects, "ConfigMap", "plumbline-object-store")["data"]
    ours = {name.removeprefix("PLUMBLINE_").lower(): value for name, value in data.items() if "PLUMBLINE" in name}
    assert Settings(**ours).model_fields_set == {"files_url", "models_url"}
    having = {
        whose
        for whose, template in pod_templates(objects)
        if "AWS_ACCESS_KEY_ID" in {one["name"] for one in template["spec"]["containers"][0].get("env", [])}
        and {"configMapRef": {"name": "plumbline-object-store"}} in template["spec"]["containers"][0]["envFrom"]
    }
    assert having == {"Deployment/plumbline-api", "Deployment/plumbline-controller", "RayCluster/plumbline control"}


def _chosen(objects: tuple[Json, ...], selector: Json) -> list[Json]:
    wanted = selector["matchLabels"].items()
    return [one for _, one in pod_templates(objects) if wanted <= one["metadata"]["labels"].items()]


def _port_names(template: Json) -> set[str]:
    return {port["name"] for container in containers(template) for port in container.get("ports", [])}
