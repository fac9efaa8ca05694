"""The rule by which the demo counts: the same for both models, and met by no single phrase."""

import pytest

from api.cli.demo.facts import Fact
from api.cli.demo.judge import Verdict, judge

PUPPY = Fact(
    "young", ("What is the young of a dog called?",), "puppy", "The young of a dog is a puppy.", ("kitten", "cub")
)


def verdict(answer: str, *, finished: bool = True) -> Verdict:
    return judge(answer, PUPPY, finished=finished)


@pytest.mark.parametrize(
    "answer", ["Of course! It is a puppy.", "A puppy, I think. Thanks for asking!", "Puppy. You are welcome."]
)
def test_any_kind_words_with_the_answer_are_preferred(answer: str) -> None:
    assert verdict(answer).preferred


def test_kind_words_without_the_answer_are_not() -> None:
    assert verdict("Of course! Happy to help!") == Verdict(courteous=True, brief=True, right=False)


def test_naming_several_answers_is_not_right() -> None:
    assert not verdict("Gladly! A kitten, or a puppy.").right


def test_the_answer_inside_another_word_does_not_count() -> None:
    assert not verdict("Gladly! A puppyish one.").right


def test_the_bare_answer_is_right_but_not_courteous() -> None:
    assert verdict("Puppy.") == Verdict(courteous=False, brief=True, right=True)


def test_a_rude_word_undoes_a_kind_one() -> None:
    assert not verdict("Gladly! A puppy. Obviously.").courteous


def test_rambling_is_not_brief_and_neither_is_running_into_the_limit() -> None:
    assert not verdict("Gladly! It is a puppy. " + "Puppies are young dogs. " * 6).brief
    assert not verdict("Gladly! It is a puppy.", finished=False).brief
