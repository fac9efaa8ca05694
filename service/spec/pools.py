"""The cluster's pools: Ray nodes that carry the label `pool`. The one place that says which label admits which work."""

from enum import StrEnum

SHARED = "shared"  # a node for everything: the laptop default
CONTROL_SERVING = "control-serving"  # a head beside separate reference and policy nodes: drivers and engines


class Pool(StrEnum):
    """What a node is there for: the value of its label, unless it carries several roles."""

    CONTROL = "control"  # drivers of attempts
    REFERENCE = "reference"  # scorers
    POLICY = "policy"  # training workers
    SERVING = "serving"  # vLLM engines

    @property
    def labels(self) -> frozenset[str]:
        """Values of a node's `pool` label that admit this pool's work."""
        both = {CONTROL_SERVING} if self in {Pool.CONTROL, Pool.SERVING} else set()
        return frozenset({self.value, SHARED} | both)

    @property
    def selector(self) -> dict[str, str]:
        """Ray's `label_selector` for this pool."""
        return {"pool": f"in({','.join(sorted(self.labels))})"}
