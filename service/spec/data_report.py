"""What a job's data is like: counted while the rows are prepared, or by `plumbline check`."""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ReportPart(BaseModel):
    model_config = ConfigDict(frozen=True)


class RowSet(ReportPart):
    """Some rows: how many, and the numbers of the first 20."""

    count: int = 0
    rows: list[int] = Field(
        default_factory=list, description="Row numbers, from 1; those of `data.validation` -1, -2...; at most 20."
    )


class Reason(RowSet):
    """Rows that were left out for one reason."""

    code: str = Field(examples=["answers_equal"])
    message: str = Field(description="As it was said of the first of them.")


class Problem(ReportPart):
    """Why one row was left out."""

    row: int
    code: str
    message: str
    field: str | None = None


class LengthBin(ReportPart):
    up_to: int = Field(description="Lengths above the bin before, up to and with this one.")
    count: int


class Lengths(ReportPart):
    """Distribution of lengths before anything is cut, in the report's `unit`."""

    count: int
    mean: float
    min: int
    median: int
    p95: int
    max: int
    bins: list[LengthBin]


class Overlap(ReportPart):
    """Held-out rows whose prompt is trained on too."""

    held_out: int = Field(description="Rows that are held out.")
    shared: RowSet


class SpecialTokens(RowSet):
    """Rows whose own text spells special tokens of the tokenizer, which the model reads as such."""

    tokens: dict[str, int] = Field(default_factory=dict, description="Rows for each token; at most 20 tokens.")


class LengthBias(ReportPart):
    """How well length alone predicts which answer is better."""

    measure: Literal["longer_is_better", "auc"] = Field(
        description="`longer_is_better`: share of the rows, among those whose best and worst answers differ in length, "
        "with the longer one preferred. `auc` (rows with labels): probability that a desirable answer is longer than "
        "an undesirable one, ties counting half."
    )
    value: float
    low: float = Field(description="Lower end of the 95 % interval (Wilson; for `auc` Hanley and McNeil, 1982).")
    high: float
    count: int = Field(description="Rows it is taken over.")


class AdviceCode(StrEnum):
    """What is worth a warning. docs/tokens.md explains each."""

    ROWS_LEFT_OUT = "rows_left_out"
    CONTRADICTIONS = "contradictions"
    SPECIAL_TOKENS = "special_tokens_in_content"
    HELD_OUT_OVERLAP = "held_out_overlap"
    DUPLICATES = "duplicates"
    ROWS_TRUNCATED = "rows_truncated"
    LENGTH_BIAS = "length_predicts_label"
    COLUMNS_IGNORED = "columns_ignored"
    CONTINUATION_INEXACT = "continuation_inexact"


class Advice(ReportPart):
    code: AdviceCode
    message: str = Field(description="What is wrong, and what to do about it.")


class DataReport(ReportPart):
    """Counts, but for `file_rows`, are of rows as the job sees them: for losses of unpaired rows a pair is two."""

    read_as: str = Field("", description="What the file's rows were taken for.")
    ignored_columns: dict[str, int] = Field(
        default_factory=dict, description="Columns that rows have but nothing reads, and how many rows have them."
    )
    unit: Literal["tokens", "characters"] = Field(description="Of all lengths; characters without a tokenizer.")
    file_rows: int = Field(description="Rows of the file; fewer than `rows` where a pair is two rows to the job.")
    rows: int
    used: int
    bad: int = Field(description="Rows left out.")
    reasons: list[Reason] = Field(description="Why rows were left out, the most frequent reason first.")
    problems: list[Problem] = Field(description="The first 20 rows that were left out.")
    cut_off: str | None = Field(None, description="Why the file could not be read to its end, if so.")
    truncated: int = Field(description="Used rows of which something was cut.")
    truncated_share: float
    prompt_tokens: int | None = Field(description="Of all used rows, after truncation; null without a tokenizer.")
    answer_tokens: int | None
    longest: int = Field(description="The longest prompt + answer, after truncation.")
    prompt_lengths: Lengths | None = Field(description="Null when no row is used.")
    answer_lengths: Lengths | None
    duplicates: RowSet = Field(description="Used rows that repeat an earlier one exactly.")
    equal_answers: RowSet = Field(description="Rows left out because two of their answers are equal.")
    contradictions: RowSet = Field(
        description="Used rows against which another one stands: a > b and b > a, or one answer with both labels."
    )
    overlap: Overlap
    special_tokens: SpecialTokens | None = Field(description="Null without a tokenizer.")
    length_bias: LengthBias | None = Field(description="Null for rows without a preference, or too few of them.")
    warnings: list[Advice]
