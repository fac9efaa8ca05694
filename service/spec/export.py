"""What control plane and cluster say to each other about the export of a checkpoint.

The answer is on the storage: the model's directory when it is whole, or a `Refusal` that says why there is none.
"""

from pathlib import Path

from pydantic import Field

from service.spec.layout import Storage
from service.spec.model import ModelRef
from service.spec.reports import Fault, WireModel
from service.spec.training import Method


class ExportBrief(WireModel):
    """Everything that makes a model of a checkpoint, without what the job was trained on."""

    job_id: str
    step: int
    generation: int = Field(description="Of the try: the control plane listens to the newest alone.")
    storage: str
    model: ModelRef = Field(description="What the job started from.")
    method: Method
    seed: int

    @property
    def target(self) -> Path:
        return Storage(Path(self.storage)).model(self.job_id, self.step)

    @property
    def checkpoint(self) -> Path:
        return Storage(Path(self.storage)).pinned(self.job_id, self.step)


class Refusal(WireModel):
    """Why a try made no model."""

    generation: int
    code: str
    message: str
    fault: Fault


def refusal_path(checkpoint: Path) -> Path:
    """checkpoint: the pinned one."""
    return checkpoint.with_name(f"{checkpoint.name}.refused.json")
