"""What the package sends to create a fine-tuning job: the part of it that can be honoured, and nothing else."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from service.spec.base import SpecModel
from service.spec.job import AlignmentJob, Metadata


def _auto(value: Any) -> Any:
    return None if value == "auto" else value


def _schema(kind: str) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": kind}, {"type": "null"}]})


# None stands for "auto": the default of the AlignmentJob.
Count = Annotated[int | None, Field(strict=True), BeforeValidator(_auto), _schema("integer")]
Number = Annotated[float | None, Field(strict=True, gt=0), BeforeValidator(_auto), _schema("number")]


class Hyperparameters(SpecModel):
    batch_size: Count = Field(None, description="Rows per optimizer step: `training.batch_size`.")
    learning_rate_multiplier: Number = Field(
        None, description="Factor on the default learning rate of what is trained: `training.learning_rate`."
    )
    n_epochs: Count = Field(None, description="Passes over the rows: `training.epochs`.")


class DpoHyperparameters(Hyperparameters):
    beta: Number = Field(None, description="Of the loss `sigmoid`.")


class Supervised(SpecModel):
    hyperparameters: Hyperparameters | None = None


class Dpo(SpecModel):
    hyperparameters: DpoHyperparameters | None = None


class Method(SpecModel):
    type: Literal["supervised", "dpo"] = Field(description="`supervised`: the loss `sft`; `dpo`: the loss `sigmoid`.")
    supervised: Supervised | None = None
    dpo: Dpo | None = None

    @model_validator(mode="after")
    def _of_its_type(self) -> "Method":
        other = "dpo" if self.type == "supervised" else "supervised"
        if getattr(self, other) is not None:
            raise ValueError(f"`{other}` would not be used with `type: {self.type}`: leave it out")
        return self

    @property
    def hyperparameters(self) -> Hyperparameters | None:
        options = self.supervised or self.dpo
        return options.hyperparameters if options else None


class FineTuningRequest(SpecModel):
    """A strict subset of the package's request: what could not be honoured is refused, never ignored."""

    model: str = Field(
        max_length=1000,
        description="`job:ID` (as `fine_tuned_model` names it), `hf:owner/name[@revision]` or a model directory.",
        examples=["hf:Qwen/Qwen3-0.6B"],
    )
    training_file: str = Field(
        max_length=2000,
        description="The ID of an uploaded file, or what else `data.train` of an AlignmentJob may say.",
        examples=["file-019316f0a6b2f3c1d4e5a"],
    )
    method: Method | None = Field(None, description="Without one: `supervised`, as with OpenAI.")
    hyperparameters: Hyperparameters | None = Field(None, description="Deprecated: those of `method` before it was.")
    suffix: str | None = Field(None, min_length=1, max_length=64, description="The job's `name`.")
    seed: int | None = Field(None, description="`training.seed`.")
    metadata: Metadata | None = None
    validation_file: str | None = Field(
        None, max_length=2000, description="`data.validation`; without one a share of the training rows is held out."
    )
    integrations: None = Field(None, description="Not taken.")
    plumbline: dict[str, Any] | None = Field(
        None,
        description="Fields of an AlignmentJob (POST /v1/jobs), by the package's `extra_body`. They are laid over what "
        "the other fields come to; one that contradicts an option given beside it is refused.",
        examples=[{"training": {"method": {"type": "lora"}}, "evaluation": {"held_out_fraction": 0.1}}],
    )

    @model_validator(mode="before")
    @classmethod
    def _ours_in_its_place(cls, value: Any) -> Any:
        given = set(value) if isinstance(value, dict) else set()
        if ours := given & (AlignmentJob.model_fields.keys() - cls.model_fields.keys()):
            raise ValueError(f"{', '.join(sorted(ours))}: give this in `plumbline`, by the package's `extra_body`")
        return value

    @field_validator("integrations", mode="before")
    @classmethod
    def _no_integrations(cls, value: Any) -> None:
        if value not in (None, []):
            raise ValueError("integrations are not supported: leave them out; events and checkpoints have the metrics")

    @model_validator(mode="after")
    def _hyperparameters_once(self) -> "FineTuningRequest":
        if self.hyperparameters and self.method and self.method.hyperparameters:
            raise ValueError("`hyperparameters` is deprecated and `method` has its own: give them in `method` alone")
        return self
