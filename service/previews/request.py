"""What a client wants to have looked at: the parts of a job that decide how rows become tokens."""

from typing import Annotated

from pydantic import ConfigDict, Field

from service.spec import AlignmentJob, DataSpec, Loss, ModelRef
from service.spec.base import SpecModel

_NO_MODEL = "/"  # a job has one; the rows are read alike with any


class PreviewRequest(SpecModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"data": {"train": "file-019316f0a6b2f3c1d4e5a"}, "model": "/models/qwen3"}]}
    )

    model: ModelRef | None = Field(
        None, description="Whose tokenizer and chat template to use; without one lengths are characters."
    )
    data: DataSpec = Field(description="As in a job. `train` is an uploaded file, or a path on the server.")
    losses: Annotated[list[Loss], Field(min_length=1, max_length=8)] | None = Field(
        None, description="As in a job: they say which rows are needed."
    )

    def job(self) -> AlignmentJob:
        """Raises pydantic's ValidationError for losses and data that do not go together."""
        given = self.model_dump(mode="json", include={"data", "losses"}, exclude_unset=True, exclude_none=True)
        return AlignmentJob.model_validate({"model": _NO_MODEL, "serve": False} | given)
