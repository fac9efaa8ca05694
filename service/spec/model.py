"""Which model a job starts from."""

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from service.spec.base import SpecModel

_STEP = r"[1-9][0-9]{0,8}"
_SOURCE = re.compile(rf"(job:job-[0-9a-f]{{21}}(@{_STEP})?|hf:[\w.-]+/[\w.-]+(@[\w./-]+)?|/[^\0]*)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# As OpenAI names the checkpoints of a model; one spelling is kept.
_CHECKPOINT = re.compile(rf"(job:job-[0-9a-f]{{21}}):ckpt-step-({_STEP})")


def one_spelling(source: str) -> str:
    """`job:ID:ckpt-step-N` as `job:ID@N`; anything else as it is."""
    return _CHECKPOINT.sub(r"\1@\2", source) if _CHECKPOINT.fullmatch(source) else source


class ModelRef(SpecModel):
    """A model directory, a Hugging Face name or the result of another job. A bare string stands for its `source`."""

    source: str = Field(
        description="`job:ID` (the model that job published), `job:ID@STEP` (an exported checkpoint of it), "
        "`hf:owner/name[@revision]`, or an absolute path on the cluster's storage, in the layout of transformers' "
        "`save_pretrained`.",
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
        value = one_spelling(value)
        if not _SOURCE.fullmatch(value) or (value.startswith("hf:") and ".." in value):
            raise ValueError("must be 'job:ID', 'job:ID@STEP', 'hf:owner/name[@revision]' or an absolute path")
        return value

    @property
    def job_id(self) -> str | None:
        """The job whose result this is, if it is one."""
        return self.source.removeprefix("job:").partition("@")[0] if self.source.startswith("job:") else None

    @property
    def step(self) -> int | None:
        """Of the job's checkpoint that this is; None for what the job published, and for other models."""
        step = self.source.partition("@")[2] if self.job_id is not None else ""
        return int(step) if step else None

    @property
    def path(self) -> str | None:
        """The directory this names, if it names one."""
        return self.source if self.source.startswith("/") else None

    @property
    def repository(self) -> str | None:
        """`owner/name` of a model on the Hugging Face Hub."""
        return self.source.removeprefix("hf:").partition("@")[0] if self.source.startswith("hf:") else None

    @property
    def revision(self) -> str | None:
        """Of a model on the Hub: what is asked for there; None for its default branch, and for other models."""
        return (self.source.partition("@")[2] or None) if self.repository is not None else None

    @property
    def commit(self) -> str | None:
        """The revision, if that is a commit, which means the same files for ever."""
        return self.revision if _COMMIT.fullmatch(self.revision or "") else None

    def at(self, commit: str) -> Self:
        """The same model on the Hub, at a commit."""
        return self.model_copy(update={"source": f"hf:{self.repository}@{commit}"})
