"""Where things lie under the storage root that control plane and cluster share. Paths only; no file is opened here."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Storage:
    root: Path

    @property
    def files(self) -> Path:
        """Uploaded files, one each, named by ID."""
        return self.root / "files"

    @property
    def uploads(self) -> Path:
        """Parts of uploads that are not complete: `<upload ID>.<part ID>`."""
        return self.root / "uploads"

    @property
    def reference_store(self) -> Path:
        """Reference log-probs, shared by all jobs of all projects."""
        return self.root / "reference"

    def reference_store_of(self, project_id: str) -> Path:
        """Reference log-probs that only jobs of this project share."""
        digest = hashlib.sha256(project_id.encode()).hexdigest()  # an ID need not be a name for a directory
        return self.reference_store / f"project-{digest[:16]}"

    def run(self, job_id: str) -> Path:
        """A job's working files: prepared pairs, checkpoints, logs."""
        return self.root / "runs" / job_id

    def checkpoints(self, job_id: str) -> Path:
        """A job's checkpoints, `step-00000050` and so on; see workers.engine.checkpoint."""
        return self.run(job_id) / "checkpoints"

    def held_out(self, job_id: str) -> Path:
        """Rows that a job kept out of training: JSON Lines of row, prompt and answers. There when it has trained."""
        return self.run(job_id) / "held_out.jsonl"

    def pairs(self, job_id: str) -> Path:
        """What training did to the pairs of a job; see service.spec.pairs."""
        return self.run(job_id) / "pairs.sqlite"

    @property
    def removed_runs(self) -> Path:
        """Working files on their way out: whatever lies here may be deleted."""
        return self.root / "runs" / ".removed"

    @property
    def models(self) -> Path:
        """What jobs published, by job, and what operators put there."""
        return self.root / "models"

    def model(self, job_id: str, step: int | None = None) -> Path:
        """The model a job published, or made of its checkpoint after `step`; exists only when it is whole."""
        return self.models / job_id if step is None else self.exported(job_id) / step_name(step)

    def hub_model(self, repository: str, commit: str) -> Path:
        """The copy of a model on the Hugging Face Hub: for training, and for the engine of the base."""
        return self.root / "hub" / f"{repository.replace('/', '--')}@{commit}"

    def whole_hub_model(self, repository: str, commit: str) -> Path:
        """There once nothing of the copy is missing."""
        return self.hub_model(repository, commit) / ".whole"

    @property
    def passing_models(self) -> Path:
        """Copies of models on their way from the object store, or out: nothing here is whole."""
        return self.root / "passing-models"

    def exported(self, job_id: str) -> Path:
        """The models made of a job's checkpoints; beside `models`, where clients may name directories."""
        return self.root / "exported" / job_id

    def pinned(self, job_id: str, step: int) -> Path:
        """A checkpoint that is kept for its export, whatever becomes of the job's own."""
        return self.run(job_id) / "exports" / step_name(step)

    def pins(self) -> Iterator[Path]:
        """All of those, and what is beside them."""
        return (self.root / "runs").glob("*/exports/*")


def step_name(step: int) -> str:
    """What the directory of a checkpoint after `step` is called."""
    return f"step-{step:08}"
