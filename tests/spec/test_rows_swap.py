"""Rows with their answers exchanged are rows of the same format, with the answers exchanged."""

from typing import Any

import pytest

from service.spec.rows import RowError, RowFormat, parse_value
from service.spec.rows.formats import detect
from service.spec.rows.swap import swap_answers

SAID = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
ASKED = {"role": "user", "content": "How?"}
ROWS: dict[RowFormat, dict[str, Any]] = {
    RowFormat.EXPLICIT: {"prompt": "How?", "chosen": "good", "rejected": "bad", "score_chosen": 2, "score_rejected": 1},
    RowFormat.IMPLICIT: {"chosen": [ASKED, SAID[0]], "rejected": [ASKED, SAID[1]]},
    RowFormat.ULTRAFEEDBACK: {"prompt": "How?", "chosen": [ASKED, SAID[0]], "rejected": [ASKED, SAID[1]]},
    RowFormat.HH: {
        "chosen": "\n\nHuman: How?\n\nAssistant: good",
        "rejected": "\n\nHuman: How?\n\nAssistant: bad",
    },
    RowFormat.OPENAI: {
        "input": {"messages": [ASKED]},
        "preferred_output": [SAID[0]],
        "non_preferred_output": [SAID[1]],
    },
    RowFormat.SHAREGPT: {
        "conversations": [{"from": "human", "value": "How?"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    },
    RowFormat.ALPACA: {"instruction": "How?", "chosen": "good", "rejected": "bad"},
    RowFormat.RANKED: {"prompt": "How?", "ranked": ["good", "bad"], "scores": [2, 1]},
    RowFormat.SCORED: {"prompt": "How?", "answers": ["bad", "good"], "scores": [1, 2]},
}


@pytest.mark.parametrize("read_as", ROWS)
def test_the_row_of_any_format_that_has_two_answers(read_as: RowFormat) -> None:
    value = ROWS[read_as]
    assert detect(value) is read_as
    swapped = swap_answers(value, read_as)
    before, after = parse_value(value, 1, read_as), parse_value(swapped, 1, read_as)
    assert after.answers == before.answers[::-1]
    assert after.prompt == before.prompt
    assert swap_answers(swapped, read_as) == value


def test_every_format_either_swaps_or_has_no_two_answers() -> None:
    none = {RowFormat.AUTO, RowFormat.UNPAIRED, RowFormat.COMPLETION, RowFormat.MESSAGES}
    assert set(RowFormat) == none | set(ROWS)
    for read_as in none:
        with pytest.raises(RowError, match="no two answers"):
            swap_answers({}, read_as)
    with pytest.raises(RowError, match="more than two"):
        swap_answers({"prompt": "p", "ranked": ["a", "b", "c"]}, RowFormat.RANKED)
