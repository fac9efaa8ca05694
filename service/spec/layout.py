"""Where things lie under the storage root that control plane and cluster share. Paths only; nothing is opened here."""

import hashlib
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

    @property
    def removed_runs(self) -> Path:
        """Working files on their way out: whatever lies here may be deleted."""
        return self.root / "runs" / ".removed"

    def model(self, job_id: str) -> Path:
        """The model a job published; exists only when it is whole."""
        return self.root / "models" / job_id
