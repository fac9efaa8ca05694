"""Which engine holds which model.

An engine is one set of weights on vLLM, and one Serve application; it is a project's own. LoRA adapters share the
engine of the weights that they were trained on, with those weights themselves: that is the base beside them. Everything
else that a job made (all weights trained, or an adapter that vLLM does not take) has an engine of its own.

What a model's place is follows from its own files and its job alone, so no deployment ever moves another one.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.settings import Settings
from service.spec import AlignmentJob, ModelRef, Storage
from service.spec.model_config import takes_adapters
from service.spec.origin import Origin
from service.spec.served import WEIGHTS, adapter_name


class NotServable(ValueError):
    """The job's models cannot be served side by side; the message says why."""


@dataclass(frozen=True)
class Place:
    """Where a model is asked. `weights` and `adapters` say what its engine holds; `model` is its name there; `gpus` is
    what its engine counts in the project's quota."""

    engine: str
    weights: str
    adapters: bool
    model: str
    gpus: float = 0.0  # also those from before it was written down

    @property
    def is_adapter(self) -> bool:
        return self.model != WEIGHTS


@dataclass(frozen=True)
class Made:
    """What a job made: the model that it published, or that of its checkpoint after `step`."""

    job_id: str
    step: int | None
    spec: AlignmentJob


@dataclass(frozen=True)
class Engines:
    """Places models on the engines of one project. Opens their configurations, on the storage."""

    settings: Settings
    project_id: str

    def side_by_side(self, made: Made, base: Made | None) -> tuple[Place, Place]:
        """The model that the job started from, and the one that it made. base: what `spec.model` names, if a job made
        that. Raises NotServable."""
        if made.spec.model.weights == "random":
            raise NotServable(
                "The job started from random weights: there is no base to serve beside it. Use its model as `job:ID` "
                "in another job, and deploy that one."
            )
        aligned = self._of(made)
        if aligned.is_adapter and not made.spec.continues_adapter:
            return self._place(aligned.weights, adapters=True), aligned
        if base is not None:
            return self._of(base), aligned
        directory = self._directory(made)
        return self._place(self._started_from(directory, made), adapters=self._takes_adapters(directory)), aligned

    def _started_from(self, directory: Path, made: Made) -> str:
        """The very weights: of a model on the Hub the copy that was trained from, while it is on the storage."""
        model = made.spec.model
        if model.repository is None:
            return model.source
        try:
            origin = Origin.read(directory)
        except ValidationError as error:
            raise NotServable(f"What {directory} says of its base (plumbline.json) cannot be read.") from error
        model = model if origin is None else origin.model
        if model.repository is None or model.commit is None:
            return model.source
        if not self._storage.whole_hub_model(model.repository, model.commit).exists():
            return model.source
        return str(self._storage.hub_model(model.repository, model.commit))

    def _of(self, made: Made) -> Place:
        directory = self._directory(made)
        if made.spec.model.weights == "pretrained" and (base := self._adapted(directory)):
            return self._place(str(base), adapters=True, model=adapter_name(made.job_id, made.step))
        return self._place(str(directory), adapters=False)

    def _adapted(self, directory: Path) -> Path | None:
        """The weights under the model's adapter, if an engine with those can serve it."""
        adapter = _json(directory / "adapter" / "adapter_config.json")
        base = adapter.get("base_model_name_or_path")
        rank = adapter.get("r")
        targets = adapter.get("target_modules")
        if not isinstance(base, str) or not isinstance(rank, int) or not isinstance(targets, list):
            return None
        if rank > self.settings.max_lora_rank or adapter.get("use_dora") or adapter.get("modules_to_save"):
            return None  # merged into weights of their own they run on any engine
        if any(str(name).rpartition(".")[2] in ("lm_head", "embed_tokens") for name in targets):
            return None
        return Path(base) if self._takes_adapters(directory) and (Path(base) / "config.json").is_file() else None

    def _takes_adapters(self, directory: Path) -> bool:
        return self.settings.share_engines and takes_adapters(_json(directory / "config.json"))

    def _directory(self, made: Made) -> Path:
        return self._storage.model(made.job_id, made.step)

    @property
    def _storage(self) -> Storage:
        return Storage(self.settings.storage_root.resolve())

    def _place(self, weights: str, *, adapters: bool, model: str = WEIGHTS) -> Place:
        digest = hashlib.sha256(json.dumps([self.project_id, weights, adapters]).encode()).hexdigest()
        return Place(f"engine-{digest[:20]}", weights, adapters, model, self.settings.unset_gpus)


def made_by(model: ModelRef, spec: Mapping[str, Any]) -> Made:
    """What `model`, which a job made, is; spec: that job's. Raises pydantic's ValidationError if this version does not
    take its options."""
    assert model.job_id is not None
    return Made(model.job_id, model.step, AlignmentJob.model_validate(spec))


def _json(path: Path) -> dict[str, Any]:
    """Empty for what is not there or cannot be read: the engine will say what it misses."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
