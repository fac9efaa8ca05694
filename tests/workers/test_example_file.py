"""The file of examples, and the partners of a KL term."""

from pathlib import Path

import numpy as np
import pytest

from workers.data.example_file import ExampleFile, write_examples
from workers.data.examples import Answer, Example
from workers.errors import AttemptError


def made(row: int, prompt: list[int], *answers: list[int], label: bool | None = None, **fields: float) -> Example:
    return Example(
        row,
        np.array(prompt, np.int32),
        tuple(Answer(np.array(ids, np.int32), np.array([i % 7 != 0 for i in ids], np.bool_)) for ids in answers),
        label,
        **fields,
    )


def same(one: Example, other: Example) -> bool:
    return one.key == other.key and (one.row, one.label, one.weight, one.margin) == (
        other.row,
        other.label,
        other.weight,
        other.margin,
    )


def test_examples_come_back_as_they_went_in_over_many_batches(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    examples = [
        made(
            i,
            rng.integers(0, 99, 1 + i % 5).tolist(),
            *(rng.integers(0, 99, 1 + k + i % 3).tolist() for k in range(1 + i % 4)),
            label=[None, True, False][i % 3],
            weight=0.5 + i,
            margin=-1.0 * i,
        )
        for i in range(2500)
    ]
    assert write_examples(tmp_path / "e.arrow", iter(examples)) == 2500
    file = ExampleFile(tmp_path / "e.arrow")
    assert len(file) == 2500
    assert all(same(file[i], examples[i]) for i in range(2500))
    assert file[1024].answers[0].mask.tolist() == examples[1024].answers[0].mask.tolist()
    with pytest.raises(IndexError):
        file[2500]


def test_an_interrupted_write_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> "list[Example]":
        yield made(1, [1], [2])  # type: ignore[misc]
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        write_examples(tmp_path / "e.arrow", broken())
    assert not (tmp_path / "e.arrow").exists()


def partners(path: Path, *prompts: int, kl_max_length: int = 100) -> list[int]:
    """For a row of prompts, whose answer each example gets; an example's answer is its position."""
    examples = [made(i, [prompt, 0], [100 + i], label=True) for i, prompt in enumerate(prompts)]
    write_examples(path, examples, kl_max_length=kl_max_length)
    file = ExampleFile(path)
    for i, prompt in enumerate(prompts):
        assert (file[i].prompt[0], file[i].answers[0].ids.tolist()) == (prompt, [100 + i])
    return [int(file[i].answers[1].ids[0]) - 100 for i in range(len(prompts))]


def test_a_partner_is_the_next_row_with_another_prompt_and_the_last_ones_wrap_around(tmp_path: Path) -> None:
    path = tmp_path / "e.arrow"
    assert partners(path, 1, 2, 3) == [1, 2, 0]
    assert partners(path, 1, 1, 2, 2, 3) == [2, 2, 4, 4, 0]
    assert partners(path, 1, 2, 1) == [1, 2, 1]  # the first has the last one's prompt
    assert partners(path, 1, 1, 2, 1, 1) == [2, 2, 3, 2, 2]


def test_a_run_of_one_prompt_may_go_on_over_batches(tmp_path: Path) -> None:
    found = partners(tmp_path / "e.arrow", *[1] * 1500, *[2] * 1500)
    assert set(found[:1500]) == {1500}
    assert set(found[1500:]) == {0}


def test_a_partner_is_cut_to_the_room_behind_its_new_prompt(tmp_path: Path) -> None:
    examples = [made(1, [1] * 6, [11, 12]), made(2, [2], [21, 22, 23, 24, 25, 26])]
    write_examples(tmp_path / "e.arrow", examples, kl_max_length=9)
    file = ExampleFile(tmp_path / "e.arrow")
    assert file[0].answers[1].ids.tolist() == [21, 22, 23]
    assert file[0].max_length == 9
    assert file[1].answers[1].ids.tolist() == [11, 12]


def test_partners_need_two_prompts(tmp_path: Path) -> None:
    with pytest.raises(AttemptError) as error:
        partners(tmp_path / "e.arrow", 1, 1, 1)
    assert error.value.code == "kl_needs_prompts"
    assert list(tmp_path.iterdir()) == []
