"""Which model a job starts from."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from service.spec.base import SpecModel

_SOURCE = re.compile(r"(job:job-[0-9a-f]{21}|hf:[\w.-]+/[\w.-]+(@[\w./-]+)?|/[^\0]*)")


class ModelRef(SpecModel):
    """A model directory, a Hugging Face name or the result of another job. A bare string stands for its `source`."""

    source: str = Field(
        description="`job:ID` (the model that job published), `hf:owner/name[@revision]`, or an absolute path on the "
        "cluster's storage, in the layout of transformers' `save_pretrained`.",
        examples=["hf:Qwen/Qwen3-0.6B", "/models/qwen3-0.6b", "job:job-019316f0a6b2f3c1d4e5a"],
        max_length=1000,
    )
    weights: Literal["pretrained", "random"] = Field(
        "pretrained",
        description="`random` initialises the architecture in config.json from the job's seed: training from scratch.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @field_validator("source")
    @classmethod
    def _known_form(cls, value: str) -> str:
        if not _SOURCE.fullmatch(value) or (value.startswith("hf:") and ".." in value):
            raise ValueError("must be 'job:ID', 'hf:owner/name[@revision]' or an absolute path")
        return value

    @property
    def job_id(self) -> str | None:
        """The job whose result this is, if it is one."""
        return self.source.removeprefix("job:") if self.source.startswith("job:") else None

    @property
    def path(self) -> str | None:
        """The directory this names, if it names one."""
        return self.source if self.source.startswith("/") else None
