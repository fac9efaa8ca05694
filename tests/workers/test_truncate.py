"""Limits of prompt, answer and both: what is cut where."""

from typing import Any

import numpy as np
import pytest

from service.spec import DataSpec
from service.spec.rows import RowError
from workers.data.examples import Answer, Example
from workers.data.truncate import fit

BOS, EOS = 1, 2


def example(prompt: int, *answers: int) -> Example:
    """Ids count up, so that what is left tells what was cut; BOS in front, EOS behind."""
    made = []
    for length in answers:
        ids = np.r_[np.arange(500, 500 + length - 1), EOS].astype(np.int32)
        made.append(Answer(ids, np.ones(length, np.bool_)))
    return Example(1, np.r_[BOS, np.arange(100, 100 + prompt - 1)].astype(np.int32), tuple(made))


def cut(what: Example, **limits: Any) -> tuple[list[int], list[list[int]]]:
    data = DataSpec.model_validate({"train": "file-" + "0" * 21} | limits)
    fitted = fit(what, data, BOS)
    assert all(len(answer.ids) == len(answer.mask) for answer in fitted.answers)
    return fitted.prompt.tolist(), [answer.ids.tolist() for answer in fitted.answers]


def code(what: Example, **limits: Any) -> str:
    with pytest.raises(RowError) as error:
        cut(what, **limits)
    return error.value.code


def test_what_fits_is_left_alone() -> None:
    whole = example(8, 8, 3)
    data = DataSpec(train="file-" + "0" * 21, max_length=16, max_prompt_length=8, max_completion_length=8)
    assert fit(whole, data, BOS) is whole


def test_keep_end_cuts_the_start_of_the_prompt_but_not_bos() -> None:
    prompt, answers = cut(example(12, 8, 3), max_length=16)
    assert prompt == [BOS, 104, 105, 106, 107, 108, 109, 110]
    assert answers == [[500, 501, 502, 503, 504, 505, 506, EOS], [500, 501, EOS]]


def test_keep_start_cuts_the_end_of_each_answer() -> None:
    prompt, answers = cut(example(12, 8, 3), max_length=16, truncation="keep_start")
    assert len(prompt) == 12
    assert answers == [[500, 501, 502, 503], [500, 501, EOS]]


def test_the_prompt_is_cut_for_the_longest_of_k_answers_and_shared_by_all() -> None:
    prompt, answers = cut(example(12, 3, 10, 5), max_length=16)
    assert prompt == [BOS, 106, 107, 108, 109, 110]
    assert [len(answer) for answer in answers] == [3, 10, 5]


def test_an_answer_that_alone_is_too_long_leaves_one_token_of_the_prompt() -> None:
    prompt, answers = cut(example(6, 40, 3), max_length=16)
    assert prompt == [104]
    assert len(answers[0]) == 15
    assert answers[1] == [500, 501, EOS]


def test_a_prompt_over_its_own_limit_loses_its_start_in_both_modes() -> None:
    for truncation in ("keep_start", "keep_end"):
        prompt, answers = cut(example(12, 4), max_prompt_length=4, truncation=truncation)
        assert prompt == [BOS, 108, 109, 110]
        assert answers == [[500, 501, 502, EOS]]


def test_an_answer_over_its_own_limit_loses_its_end_in_both_modes() -> None:
    for truncation in ("keep_start", "keep_end"):
        prompt, answers = cut(example(4, 6, 2), max_completion_length=3, truncation=truncation)
        assert len(prompt) == 4
        assert answers == [[500, 501, 502], [500, EOS]]


def test_the_limits_of_prompt_and_answer_come_before_the_one_of_both() -> None:
    prompt, answers = cut(example(30, 30), max_prompt_length=12, max_completion_length=8, max_length=16)
    assert (len(prompt), len(answers[0])) == (8, 8)
    prompt, answers = cut(
        example(30, 30), max_prompt_length=12, max_completion_length=8, max_length=16, truncation="keep_start"
    )
    assert (len(prompt), len(answers[0])) == (12, 4)


@pytest.mark.parametrize("limits", [{"max_length": 16}, {"max_prompt_length": 11}, {"max_completion_length": 7}])
def test_with_error_nothing_is_ever_cut(limits: dict[str, int]) -> None:
    assert code(example(12, 8), truncation="error", **limits) == "row_too_long"


def test_a_prompt_that_leaves_no_room_is_an_error_and_not_dropped() -> None:
    assert code(example(16, 4), max_length=16, truncation="keep_start") == "prompt_too_long"
