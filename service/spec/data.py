"""Which rows a job learns from, and how they become token sequences."""

from enum import StrEnum

from pydantic import Field

from service.spec.base import SpecModel


class Truncation(StrEnum):
    """What happens to a prompt + answer that is longer than `max_length`."""

    ERROR = "error"  # refuse the job, naming the rows
    KEEP_START = "keep_start"  # cut the end of the answer
    KEEP_END = "keep_end"  # cut the start of the prompt; an answer that alone is too long loses its end


class DataSpec(SpecModel):
    train: str = Field(
        pattern=r"^file-[0-9a-f]{21}$",
        description="ID of an uploaded file (POST /v1/files): JSON Lines, optionally gzip-compressed.",
        examples=["file-019316f0a6b2f3c1d4e5a"],
    )
    max_length: int = Field(2048, ge=16, le=1_048_576, description="Longest prompt + answer, in tokens.")
    truncation: Truncation = Field(
        Truncation.KEEP_END,
        description="For longer sequences: `keep_end` cuts the start of the prompt, `keep_start` the end of the "
        "answer, `error` refuses the job. How many were cut is in the job's `data.prepared` event.",
    )
    max_bad_rows: int = Field(
        0,
        ge=0,
        description="Rows that cannot be used (equal answers, an empty one, not JSON...) are left out up to this "
        "number and listed in the `data.prepared` event; with more, the job is refused.",
    )
