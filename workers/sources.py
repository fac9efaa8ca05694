"""Where a job's models come from."""

from pathlib import Path

import httpx2  # what huggingface_hub raises from
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from service.spec import ModelRef, Storage
from workers.errors import AttemptError

_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def resolve(model: ModelRef, storage: Storage) -> Path:
    """The model's directory on storage that every worker sees; a Hugging Face model is downloaded there once.

    Raises AttemptError `model_not_found`.
    """
    if model.job_id:
        path = storage.model(model.job_id)
    elif model.path:
        path = Path(model.path)
    else:
        path = _download(model.source.removeprefix("hf:"), storage.root / "hub")
    if not (path / "config.json").is_file():
        raise AttemptError("model_not_found", f"There is no model at {path} (no config.json), as the cluster sees it.")
    return path


def _download(name: str, cache: Path) -> Path:
    """Pinned to the commit that the name means now."""
    repository, _, revision = name.partition("@")
    try:
        commit = HfApi().model_info(repository, revision=revision or None).sha
        target = cache / f"{repository.replace('/', '--')}@{commit}"
        snapshot_download(repository, revision=commit, local_dir=target, allow_patterns=_WANTED)
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError) as error:
        raise AttemptError(
            "model_not_found",
            f"Hugging Face model {name} could not be fetched: {error}. Check the name and the cluster's access to the "
            "hub (HF_TOKEN for gated models, HF_ENDPOINT for a mirror), or give a path on the cluster's storage.",
        ) from error
    return target
