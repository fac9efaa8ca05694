"""What of a data report is worth a warning, and what to do about it."""

from collections.abc import Iterator

from service.spec import AlignmentJob
from service.spec.data_report import Advice, AdviceCode, DataReport, RowSet
from service.spec.shapes import DataShape

_TRUNCATED_SHARE = 0.01
_BIASED = 0.6  # the interval of the length bias lies above this, or below its mirror image


def advise(report: DataReport, job: AlignmentJob, *, exact: bool) -> list[Advice]:
    """Warnings, the gravest first."""
    return [Advice(code=code, message=message) for code, message in _advice(report, job, exact)]


def _advice(report: DataReport, job: AlignmentJob, exact: bool) -> Iterator[tuple[AdviceCode, str]]:
    has_pairs = job.data_shape is DataShape.PAIRS
    if report.bad:
        reasons = ", ".join(f"{reason.code} ({reason.count})" for reason in report.reasons)
        yield (
            AdviceCode.ROWS_LEFT_OUT,
            f"{report.bad} of {report.rows} rows cannot be used: {reasons}. Correct them; a job is refused above "
            f"data.max_bad_rows, here {job.data.max_bad_rows}.",
        )
    if report.contradictions.count:
        losses = ", or use the `robust` loss or `label_smoothing`" if has_pairs else ""
        yield (
            AdviceCode.CONTRADICTIONS,
            f"{report.contradictions.count} rows say the opposite of another row: {_where(report.contradictions)}. "
            f"They cancel out at best: keep the judgement you trust{losses}.",
        )
    if report.special_tokens and report.special_tokens.count:
        tokens = ", ".join(repr(token) for token in report.special_tokens.tokens)
        yield (
            AdviceCode.SPECIAL_TOKENS,
            f"{report.special_tokens.count} rows spell special tokens in their own text ({tokens}): "
            f"{_where(report.special_tokens)}. The model reads them as control tokens, so they can end a turn early. "
            "Remove them, unless the strings were formatted on purpose.",
        )
    if report.overlap.shared.count:
        yield (
            AdviceCode.HELD_OUT_OVERLAP,
            f"{report.overlap.shared.count} of {report.overlap.held_out} held-out rows have a prompt that is trained "
            f"on too: {_where(report.overlap.shared)}. Held-out metrics will look too good: hold out by prompt, or "
            "keep one row a prompt.",
        )
    if report.duplicates.count:
        yield (
            AdviceCode.DUPLICATES,
            f"{report.duplicates.count} rows repeat another one exactly: {_where(report.duplicates)}. Each counts "
            "again: remove them, or give one of them a `weight`.",
        )
    if report.truncated_share > _TRUNCATED_SHARE:
        yield (
            AdviceCode.ROWS_TRUNCATED,
            f"{report.truncated} rows ({report.truncated_share:.1%}) are cut; an answer that lost its end does not "
            f"teach where to stop. Raise data.max_length (now {job.data.max_length}), or leave out long rows.",
        )
    bias = report.length_bias
    if bias and (bias.low > _BIASED or bias.high < 1 - _BIASED):
        losses = ", or use `sigmoid_norm` or `simpo`, which compare answers per token" if has_pairs else ""
        longer = "longer" if bias.value > 0.5 else "shorter"
        yield (
            AdviceCode.LENGTH_BIAS,
            f"Length alone predicts the preference ({bias.value:.0%}, 95 % interval {bias.low:.0%} to "
            f"{bias.high:.0%}): the {longer} answer tends to be the better one, and a model may learn that instead of "
            f"what makes it better. Balance the lengths{losses}.",
        )
    if report.ignored_columns:
        names = ", ".join(f"'{name}' ({count})" for name, count in sorted(report.ignored_columns.items()))
        yield (
            AdviceCode.COLUMNS_IGNORED,
            f"Nothing reads these columns of the rows: {names}. Check that none of them was meant to be an answer, a "
            "weight or a label.",
        )
    if not exact:
        yield (
            AdviceCode.CONTINUATION_INEXACT,
            "The tokenizer cannot write two words without a space between them, so answers begin with one. Start the "
            "answers of your rows at a word.",
        )


def _where(rows: RowSet) -> str:
    shown = ", ".join(map(str, rows.rows[:5]))
    return f"row {shown}" if rows.count == 1 else f"rows {shown}" + (" ..." if rows.count > 5 else "")
