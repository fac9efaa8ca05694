"""What the losses of a job make of a dialogue: pairs, rankings, labelled answers or answers alone."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from service.spec.rows.formats import RowFormat, ScoreUse
from service.spec.rows.row import Row, RowError
from service.spec.shapes import DataShape

if TYPE_CHECKING:  # the job holds a DataSpec, which holds a format: at run time this module comes first
    from service.spec.job import AlignmentJob


@dataclass(frozen=True)
class RowNeeds:
    """What a job asks of its rows.

    uses_weight, uses_margin: whether the losses of the job take them. A row that has one for nothing is refused.
    """

    shape: DataShape
    uses_weight: bool = True
    uses_margin: bool = False
    format: RowFormat = RowFormat.AUTO
    scores: ScoreUse = ScoreUse.IGNORE

    @classmethod
    def of(cls, job: "AlignmentJob") -> "RowNeeds":
        return cls(job.data_shape, job.uses_weight, job.uses_margin, job.data.format, job.data.scores)


def shape_row(row: Row, needs: RowNeeds) -> Iterator[Row]:
    """The row as `needs.shape` has it; a pair makes two unpaired rows of the same number.

    Raises RowError for a row that cannot have that shape, and for a weight or a margin that no loss would use.
    """
    if row.weight != 1 and not needs.uses_weight:
        raise RowError("weight_unused", "the row has a weight, which a loss of the job cannot use", "weight")
    if row.margin != 0 and not needs.uses_margin:
        raise RowError("margin_unused", "the row has a margin, and no loss of the job uses margins", "margin")
    match needs.shape:
        case DataShape.PAIRS:
            yield _of_length(row, at_most=2, wanted="a chosen and a rejected answer")
        case DataShape.RANKED:
            yield _of_length(row, at_most=None, wanted="at least two answers in order")
        case DataShape.UNPAIRED:
            yield from _labelled(row)
        case DataShape.ANSWERS:
            if row.label is False:
                raise RowError(
                    "label_false", "the answer is labelled undesirable, and the job learns good ones", "label"
                )
            yield replace(row, answers=row.answers[:1], label=None)


def _of_length(row: Row, at_most: int | None, wanted: str) -> Row:
    count = len(row.answers)
    if count < 2 or (at_most is not None and count > at_most):
        has = "one answer" if count == 1 else f"a ranking of {count} answers"
        raise RowError("shape_mismatch", f"the losses of the job need {wanted}; the row has {has}")
    return row


def _labelled(row: Row) -> Iterator[Row]:
    if row.label is not None:
        yield row
    elif len(row.answers) == 2:
        yield replace(row, answers=row.answers[:1], label=True)
        yield replace(row, answers=row.answers[1:], label=False)
    else:
        has = "one answer without a label" if len(row.answers) == 1 else f"a ranking of {len(row.answers)} answers"
        raise RowError("shape_mismatch", f"the losses of the job need labelled answers or pairs; the row has {has}")
