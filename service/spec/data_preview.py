"""What an upload is like before there is any job on it: the data report, and some rows as the model will see them."""

from enum import StrEnum

from pydantic import Field

from service.spec.base import SpecModel
from service.spec.data_report import DataReport, ReportPart

SHOWN_TOKENS = 400


class TokenRole(StrEnum):
    PROMPT = "prompt"
    COMPLETION = "completion"  # counts in the loss
    MASKED = "masked"  # after the prompt, but does not count


class Token(ReportPart):
    id: int | None = Field(description="Null where there is no tokenizer: then the token is the whole text.")
    text: str = Field(
        description="What the token adds to the text; empty for one that only begins a character, which the next one "
        "then shows."
    )
    role: TokenRole


class TokenSequence(ReportPart):
    """A prompt or an answer, after truncation."""

    tokens: list[Token] = Field(
        description=f"At most {SHOWN_TOKENS}: of a prompt the last ones, of an answer the first ones."
    )
    length: int = Field(description="Of all of it, in the report's `unit`.")
    cut: int = Field(description="Tokens that truncation took.")


class SampleAnswer(TokenSequence):
    name: str = Field(description="What it is to the loss.", examples=["chosen", "rejected"])


class SampleRow(ReportPart):
    row: int = Field(description="Its number in the file, from 1.")
    prompt: TokenSequence
    answers: list[SampleAnswer]
    label: bool | None = Field(description="Of an unpaired answer, whether it is desirable.")
    weight: float
    margin: float


class DataPreview(ReportPart):
    report: DataReport
    complete: bool = Field(description="Whether the file was read to its end; else the report is of its first rows.")
    samples: list[SampleRow] = Field(description="The first usable rows, at most 8.")


class PreviewLimits(SpecModel):
    """What looking at a file may cost."""

    rows: int = Field(ge=1)
    seconds: float = Field(gt=0, description="For rows; starting comes on top.")
    memory_bytes: int = Field(ge=2**28)


class PreviewOrder(SpecModel):
    """What the process that looks is told, on its standard input."""

    job: dict[str, object]
    file: str
    tokenizer: str | None
    limits: PreviewLimits
