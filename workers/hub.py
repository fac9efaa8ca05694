"""Models on the Hugging Face Hub: which commit a name means to a job, and the files of that on the storage."""

import errno
import json
import os
from pathlib import Path

import httpx2  # what huggingface_hub raises from
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from service.spec import AlignmentJob, ModelRef, Storage
from service.spec.reports import Fault
from workers.durable import sync
from workers.errors import AttemptError

_COMMITS = "models.json"  # in a job's run directory
_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_NO_ANSWER_YET = (408, 429)
_OF_THE_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


def pin(job: AlignmentJob, run_dir: Path) -> AlignmentJob:
    """The job with its models at the commits that their names meant when its first attempt asked. So a later attempt
    goes on with the same weights, and the card names them. Raises what `commit_of` does."""
    reference = pin_model(job.reference, run_dir) if job.reference is not None else None
    return job.model_copy(update={"model": pin_model(job.model, run_dir), "reference": reference})


def pin_model(model: ModelRef, run_dir: Path) -> ModelRef:
    """As `pin`; a model that is not on the Hub, or has its commit, stays as it is."""
    known = pinned(model, run_dir)
    if known.repository is None or known.commit is not None:
        return known
    commits = _commits(run_dir) | {model.source: commit_of(model)}
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / _COMMITS
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(commits))
    sync(temporary)
    temporary.replace(path)
    return model.at(commits[model.source])


def pinned(model: ModelRef, run_dir: Path) -> ModelRef:
    """At the commit that an attempt of the job has pinned it to; as it is if none has."""
    commit = _commits(run_dir).get(model.source)
    return model.at(commit) if commit is not None else model


def commit_of(model: ModelRef) -> str:
    """The commit that the name means now. Raises AttemptError `model_not_found`, or `model_unreachable` (retried)."""
    if model.commit is not None:
        return model.commit
    assert model.repository is not None
    try:
        commit = HfApi().model_info(model.repository, revision=model.revision).sha
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError) as error:
        raise _failure(model, error) from error
    assert commit is not None
    return commit


def copy_of(model: ModelRef, storage: Storage) -> Path:
    """Its directory on the storage, fetched if it is not there yet; one that is whole is used without asking the Hub.

    Raises what `commit_of` does, and `storage_failed`.
    """
    assert model.repository is not None
    commit = commit_of(model)
    target = storage.hub_model(model.repository, commit)
    if storage.whole_hub_model(model.repository, commit).exists():
        return target
    try:
        snapshot_download(model.repository, revision=commit, local_dir=target, allow_patterns=_WANTED)
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError) as error:
        raise _failure(model, error) from error
    for path in target.rglob("*"):
        if path.relative_to(target).parts[0] != ".cache":  # of the download, which others may be at
            sync(path)
    storage.whole_hub_model(model.repository, commit).touch()
    return target


def _commits(run_dir: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((run_dir / _COMMITS).read_bytes())
    except FileNotFoundError:
        return {}
    return found


def _failure(model: ModelRef, error: Exception) -> AttemptError:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    said = f"Hugging Face model {model.source.removeprefix('hf:')} could not be fetched: {error}."
    if isinstance(error, OSError) and error.errno in _OF_THE_STORAGE:
        return AttemptError("storage_failed", f"{said} Mend the storage.", Fault.SYSTEM)
    if isinstance(error, HFValidationError) or (status and status < 500 and status not in _NO_ANSWER_YET):
        return AttemptError(
            "model_not_found",
            f"{said} Check the name, and HF_TOKEN of the workers for gated and private models.",
        )
    return AttemptError(
        "model_unreachable",
        f"{said} Check the cluster's access to the Hub (HF_ENDPOINT for a mirror), or give a path on its storage.",
        Fault.SYSTEM,
    )
