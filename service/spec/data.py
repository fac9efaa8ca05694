"""Which rows a job learns from, and how they become token sequences."""

from enum import StrEnum

from pydantic import Field, field_validator

from service.spec.base import SpecModel
from service.spec.rows.formats import RowFormat, ScoreUse
from service.spec.sources import SourceKind, source_kind


class Truncation(StrEnum):
    """What happens to a prompt + answer that is longer than `max_length`."""

    ERROR = "error"  # refuse the job, naming the rows
    KEEP_START = "keep_start"  # cut the end of the answer
    KEEP_END = "keep_end"  # cut the start of the prompt; an answer that alone is too long loses its end


class TrainOn(StrEnum):
    """Which tokens after the prompt count in the loss."""

    ASSISTANT = "assistant"  # the assistant's turns, each with its end-of-turn token
    COMPLETION = "completion"  # all of them: in an answer of several turns also user turns and role headers


class DataSpec(SpecModel):
    train: str = Field(
        max_length=2000,
        title="Training rows",
        description="Where the rows are: the ID of an uploaded file (POST /v1/files), an absolute path on the server "
        "under one of its data roots, `s3://`, `gs://` or `https://`, or a dataset on the Hugging Face Hub as "
        "`hf:owner/name[@revision]`, with `/path` of a file or directory or `:split`. JSON Lines, JSON, CSV or "
        "Parquet, plain or compressed.",
        examples=["file-019316f0a6b2f3c1d4e5a", "s3://team/pairs.parquet", "hf:owner/name@main:train"],
    )
    validation: str | None = Field(
        None,
        max_length=2000,
        title="Validation rows",
        description="Rows to measure on, in place of a share of `train`: the ID of an uploaded file, or an absolute "
        "path as in `train`. All of them are held out; `evaluation.held_out_fraction` and `held_out_max` then choose "
        "nothing, and `max_bad_rows` counts both files. Reports number these rows -1, -2, -3...",
    )
    format: RowFormat = Field(
        RowFormat.AUTO,
        description="How rows are read. `auto` goes by the columns of the first usable row; the job's `data.prepared` "
        "event says what that came to.",
    )
    scores: ScoreUse = Field(
        ScoreUse.IGNORE,
        description="What becomes of the scores of two answers (`score_chosen` and `score_rejected`, or `scores`): "
        "their absolute difference as the row's `weight`, their difference as its `margin`, or nothing.",
    )
    train_on: TrainOn = Field(
        TrainOn.ASSISTANT,
        description="`assistant`: of an answer of several turns only the assistant's count; `completion`: everything "
        "after the prompt counts, user turns and role headers too.",
    )
    max_length: int = Field(
        2048,
        ge=16,
        le=1_048_576,
        description="Longest prompt + answer, in tokens.",
        json_schema_extra={"unit": "tokens"},
    )
    max_prompt_length: int | None = Field(
        None,
        ge=1,
        le=1_048_576,
        description="Longest prompt, in tokens; null sets no limit of its own. A longer one loses its start, whatever "
        "`truncation` cuts, because its end is where the answer begins; a BOS token stays. With `truncation: error` "
        "the row is refused. Applied before `max_length`.",
        json_schema_extra={"unit": "tokens"},
    )
    max_completion_length: int | None = Field(
        None,
        ge=1,
        le=1_048_576,
        description="Longest answer, in tokens with its end token; null sets no limit of its own. A longer one loses "
        "its end, and the end token with it. With `truncation: error` the row is refused. Applied before `max_length`.",
        json_schema_extra={"unit": "tokens"},
    )
    truncation: Truncation = Field(
        Truncation.KEEP_END,
        description="For sequences that are longer than `max_length` after the two limits above: `keep_end` cuts the "
        "start of the prompt (a BOS token stays), and the end of an answer that leaves no room for a prompt; "
        "`keep_start` cuts the end of the answers; `error` refuses the row. All answers of a row keep one prompt, cut "
        "for the longest of them. How many rows were cut is in the job's data report.",
    )
    max_bad_rows: int = Field(
        0,
        ge=0,
        le=1_000_000_000,
        description="Rows that cannot be used (equal answers, an empty one, not JSON...) are left out up to this "
        "number and counted by reason in the job's data report; with more, the job is refused.",
        json_schema_extra={"unit": "rows"},
    )

    @field_validator("train")
    @classmethod
    def _known_source(cls, value: str) -> str:
        source_kind(value)
        return value

    @field_validator("validation")
    @classmethod
    def _on_the_storage(cls, value: str | None) -> str | None:
        if value is not None and source_kind(value).fetched:
            raise ValueError("must be the ID of an uploaded file, or an absolute path on the server")
        return value

    @property
    def source(self) -> SourceKind:
        return source_kind(self.train)
