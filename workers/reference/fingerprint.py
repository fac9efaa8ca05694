"""What makes two sets of log-probs the same numbers: the weights, and how they are multiplied."""

import hashlib

from service.spec import Precision
from workers.data.digest import digest_of
from workers.sources import Weights

_NUMERICS = 6  # raise when the scoring code, its kernels included, changes the numbers it gives


def namespace(weights: Weights, precision: Precision, device: str, *, compiled: bool = False) -> str:
    """Name of the part of the reference store that holds this model's log-probs under this numeric policy.

    device: torch's type of device that computes them, `cpu` or `cuda`: each has kernels of its own.
    compiled: whether its layers are to be, which then round less often in bf16; some cannot, and stay as they are.
    """
    kernels = f"{device}-compiled" if compiled else device
    return f"{fingerprint(weights)[:32]}-{precision}-{kernels}-v{_NUMERICS}"


def fingerprint(weights: Weights) -> str:
    """SHA-256 over the names and contents of the configuration and the weight files, and of those of the adapter."""
    digest = hashlib.sha256()
    model = weights.model
    files = sorted(model.glob("*.safetensors"))
    if weights.adapter is not None:
        files += [weights.adapter / "adapter_config.json", *sorted(weights.adapter.glob("*.safetensors"))]
    for path in [model / "config.json", *files]:
        digest.update(f"{path.name}\0{digest_of(path)}\n".encode())
    return digest.hexdigest()
