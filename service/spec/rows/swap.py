"""A row with its two answers exchanged, in the columns that its format has them in."""

from typing import Any

from service.spec.rows.formats import RowFormat
from service.spec.rows.row import RowError

_COLUMNS = {RowFormat.OPENAI: ("preferred_output", "non_preferred_output")}
_LISTS = {RowFormat.RANKED: "ranked", RowFormat.SCORED: "answers"}
_PAIRS = frozenset(
    {
        RowFormat.EXPLICIT, RowFormat.IMPLICIT, RowFormat.ULTRAFEEDBACK, RowFormat.HH, RowFormat.OPENAI,
        RowFormat.SHAREGPT, RowFormat.ALPACA,
    }
)  # fmt: skip


def swap_answers(value: dict[str, Any], read_as: RowFormat) -> dict[str, Any]:
    """A new value. Scores stay in their columns and places, so that the better answer keeps the higher one.

    Raises RowError where there are not two answers.
    """
    if (name := _LISTS.get(read_as)) is not None:
        answers = value.get(name)
        if not isinstance(answers, list) or len(answers) != 2:
            raise RowError("not_a_pair", "a ranking of more than two answers has no one way to be exchanged", name)
        return value | {name: answers[::-1]}
    if read_as not in _PAIRS:
        raise RowError("not_a_pair", f"the row is read as '{read_as}', which has no two answers to exchange")
    better, worse = _COLUMNS.get(read_as, ("chosen", "rejected"))
    if value.get(better) is None or value.get(worse) is None:
        raise RowError("not_a_pair", f"the row lacks '{better}' or '{worse}'", better)
    return value | {better: value[worse], worse: value[better]}
