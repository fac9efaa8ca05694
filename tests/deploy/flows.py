"""Which connections the NetworkPolicies of a rendering let through, as Kubernetes evaluates them.

A pod that no policy selects for a direction is open in it; otherwise a connection must be let through by some policy
that selects it. Both ends are asked.
"""

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from tests.deploy.rendered import Json, containers, of_kind, pod_templates


@dataclass(frozen=True)
class End:
    """A pod (labels, namespace, named ports), or an address outside the cluster."""

    labels: tuple[tuple[str, str], ...] = ()
    namespace: str = "plumbline"
    address: str | None = None
    ports: tuple[tuple[str, int], ...] = ()


def pods(objects: tuple[Json, ...]) -> dict[str, End]:
    found = {}
    for whose, template in pod_templates(objects):
        ports = {port["name"]: port["containerPort"] for one in containers(template) for port in one.get("ports", [])}
        found[whose] = End(tuple(sorted(template["metadata"]["labels"].items())), ports=tuple(ports.items()))
    return found


def allowed(objects: tuple[Json, ...], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    policies = of_kind(objects, "NetworkPolicy")
    return _passes(policies, "Egress", source, target, target, port, protocol) and _passes(
        policies, "Ingress", target, source, target, port, protocol
    )


def _passes(policies: list[Json], direction: str, of: End, peer: End, target: End, port: int, protocol: str) -> bool:
    if of.address is not None or of.namespace != "plumbline":
        return True  # its side is not ours to say
    selecting = [
        one["spec"]
        for one in policies
        if direction in one["spec"]["policyTypes"] and _matches(one["spec"]["podSelector"], dict(of.labels))
    ]
    if not selecting:
        return True
    peers, rules = ("to", "egress") if direction == "Egress" else ("from", "ingress")
    return any(
        _peer(rule.get(peers), peer) and _port(rule.get("ports"), target, port, protocol)
        for spec in selecting
        for rule in spec.get(rules, [])
    )


def _peer(named: list[Json] | None, peer: End) -> bool:
    return named is None or any(_is(one, peer) for one in named)


def _is(one: Json, peer: End) -> bool:
    if "ipBlock" in one:
        if peer.address is None:
            # what stands for pods here has no address; a block without private ranges reaches none of them
            return "10.0.0.0/8" not in one["ipBlock"].get("except", [])
        address = ip_address(peer.address)
        return address in ip_network(one["ipBlock"]["cidr"]) and not any(
            address in ip_network(block) for block in one["ipBlock"].get("except", [])
        )
    if peer.address is not None:
        return False
    if "namespaceSelector" in one:
        if not _matches(one["namespaceSelector"], {"kubernetes.io/metadata.name": peer.namespace}):
            return False
    elif peer.namespace != "plumbline":
        return False
    return _matches(one.get("podSelector", {}), dict(peer.labels))


def _port(named: list[Json] | None, target: End, port: int, protocol: str) -> bool:
    if named is None:
        return True
    numbers: dict[Any, int] = dict(target.ports)
    return any(
        one.get("protocol", "TCP") == protocol and numbers.get(one["port"], one["port"]) == port for one in named
    )


def _matches(selector: Json, labels: dict[str, str]) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for one in selector.get("matchExpressions", []):
        assert one["operator"] == "In", one
        if labels.get(one["key"]) not in one["values"]:
            return False
    return True
