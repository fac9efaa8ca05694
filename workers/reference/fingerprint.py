"""What makes two sets of log-probs the same numbers: the weights, and how they are multiplied."""

import hashlib
from pathlib import Path

from service.spec import Precision

_NUMERICS = 3  # raise when the scoring code, its kernels included, changes the numbers it gives


def namespace(model: Path, precision: Precision) -> str:
    """Name of the part of the reference store that holds this model's log-probs under this numeric policy."""
    return f"{fingerprint(model)[:32]}-{precision}-v{_NUMERICS}"


def fingerprint(model: Path) -> str:
    """SHA-256 over the names and contents of the configuration and the weight files."""
    digest = hashlib.sha256()
    weights = sorted(model.glob("*.safetensors")) or sorted(model.glob("pytorch_model*.bin"))
    for path in [model / "config.json", *weights]:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name}\0{content}\n".encode())
    return digest.hexdigest()
