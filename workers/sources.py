"""Where a job's models come from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.spec import AlignmentJob, Lora, ModelRef, Storage
from service.spec.model_config import has_cpu_engine, why_not_served, why_not_trained, why_too_long
from service.spec.modules import DamagedWeights, check_adapter
from service.spec.slicing import reads_slices, why_not_sliced
from service.spec.token_ids import other_ids
from service.spec.training import Method
from workers import hub
from workers.errors import AttemptError


@dataclass(frozen=True)
class Weights:
    """A model's directory, and that of an adapter to be put on it, if there is one."""

    model: Path
    adapter: Path | None = None


def policy_weights(job: AlignmentJob, storage: Storage) -> Weights:
    """What training starts from. Raises what `start_weights` does."""
    return start_weights(job.model, job.training.method, storage)


def start_weights(model: ModelRef, method: Method, storage: Storage) -> Weights:
    """What `method` starts from. Raises AttemptError `model_not_found`, `adapter_not_found`."""
    published = resolve(model, storage)
    if not (isinstance(method, Lora) and method.continue_adapter):
        return Weights(published)
    adapter = published / "adapter"
    try:
        base = Path(json.loads((adapter / "adapter_config.json").read_bytes())["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AttemptError("adapter_not_found", f"{model.source} has no usable adapter.") from error
    if not (base / "config.json").is_file():
        raise AttemptError(
            "model_not_found",
            f"The base model of the adapter to go on with is not at {base} any more. Put it back, or leave out "
            "continue_adapter to start from the merged model with a new adapter.",
        )
    return Weights(base, adapter)


def reference_weights(job: AlignmentJob, storage: Storage) -> Weights:
    """What log-ratios are taken against: `reference`, or the policy as it is before training.

    An adapter that is gone on with counts as it was, on its base: what was published is merged, which rounds.
    Raises what `policy_weights` does, `reference_unusable`, and `model_unusable` for a config.json that is none.
    """
    policy = policy_weights(job, storage)
    if job.reference is None:
        return policy
    reference = resolve(job.reference, storage)
    if reason := other_ids(policy.model, reference):
        raise AttemptError(
            "reference_unusable", f"The reference {job.reference.source} has another tokenizer: {reason}."
        )
    if reason := why_too_long(_config(job.reference, reference), job.data.max_length):
        raise AttemptError("reference_unusable", f"The reference {job.reference.source} {reason}")
    return Weights(reference)


def check_model(job: AlignmentJob, start: Weights) -> None:
    """What is refused at POST for a model that the control plane can see, and here for one from the hub.

    Raises AttemptError `model_unusable`, `sharding_unsupported`, `not_servable` or `lora_targets`. Opens headers only.
    """
    config = _config(job.model, start.model)
    method = job.training.method
    if job.model.weights == "pretrained" and (reason := why_not_trained(config)):
        raise AttemptError("model_unusable", f"The model {job.model.source} cannot be trained. {reason}")
    if reason := why_too_long(config, job.data.max_length):
        raise AttemptError("model_unusable", f"{job.model.source} {reason}")
    if reads_slices(job) and (reason := why_not_sliced(config)):
        raise AttemptError("sharding_unsupported", reason)
    if job.serve and (reason := why_not_served(config, on_cpu=has_cpu_engine())):
        raise AttemptError("not_servable", f"The result could not be served: {reason}. Set serve: false to train it.")
    if isinstance(method, Lora) and start.adapter is None:
        try:
            problem = check_adapter(start.model, method)
        except DamagedWeights as error:
            raise AttemptError(
                "model_unusable", f"The weights of {job.model.source} cannot be used: {error}."
            ) from error
        if problem:
            raise AttemptError("lora_targets", f"training.method.{problem[0]}: {problem[1]}.")


def _config(model: ModelRef, directory: Path) -> dict[str, Any]:
    """Raises AttemptError `model_unusable`."""
    try:
        config = json.loads((directory / "config.json").read_bytes())
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise AttemptError("model_unusable", f"The config.json of {model.source} is not a JSON object.")
    return config


def resolve(model: ModelRef, storage: Storage) -> Path:
    """The model's directory on storage that every worker sees; a Hugging Face model is downloaded there once.

    Raises AttemptError `model_not_found`, and what `hub.copy_of` does.
    """
    if model.job_id:
        path = storage.model(model.job_id, model.step)
    elif model.path:
        path = Path(model.path)
    else:
        path = hub.copy_of(model, storage)
    if not (path / "config.json").is_file():
        raise AttemptError("model_not_found", f"There is no model at {path} (no config.json), as the cluster sees it.")
    return path
