"""Chat templates that think, and ones that lose text: exact tokens, written out by hand, or an error."""

from dataclasses import replace
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from service.spec import DataSpec
from service.spec.rows import Row, RowProblem
from tests.dialogues import ASKED, CHAT, EMPTY_THOUGHT, IM, WORDS, answer_of, asks, chatml, prompt_of, refusal, says
from tests.encoding import RowEncoder
from tests.tokenizers import (
    CHATML,
    CLOSED_THOUGHT,
    FIELD,
    OPENED_FIELD,
    OPENED_THOUGHT,
    STRIPPED,
    THINKING,
    TWO_ENDS,
    VANISHING,
    byte_level,
)
from workers.data.examples import Answer
from workers.data.tokenize import Encoded, RowTokenizer


def test_an_empty_thinking_block_of_the_generation_prompt_belongs_to_the_prompt() -> None:
    tokenizer = chatml(THINKING)
    row = Row(1, CHAT, (says("ok"), says("no")), template_kwargs={"enable_thinking": False})
    example = RowEncoder(tokenizer)(row)
    assert prompt_of(tokenizer, example) == [*ASKED, *EMPTY_THOUGHT]
    assert answer_of(tokenizer, example.answers[0]) == ["ok", "<|im_end|>"]


def test_an_empty_thinking_block_that_only_the_generation_prompt_has_is_kept_before_the_answer() -> None:
    tokenizer = chatml(VANISHING)
    row = Row(1, CHAT, (says("ok"), says("no")), template_kwargs={"enable_thinking": False})
    example = RowEncoder(tokenizer)(row)
    assert prompt_of(tokenizer, example) == [*ASKED, *EMPTY_THOUGHT]
    assert answer_of(tokenizer, example.answers[0]) == ["ok", "<|im_end|>"]


def test_with_thinking_on_the_answer_holds_its_thoughts() -> None:
    tokenizer = chatml(THINKING)
    example = RowEncoder(tokenizer)(Row(1, CHAT, (says("<think>\nsure\n</think>\n\nok"), says("no"))))
    assert prompt_of(tokenizer, example) == ASKED
    thought = ["<think>", "Ċ", "sure", "Ċ", "</think>", "Ċ", "Ċ"]
    assert answer_of(tokenizer, example.answers[0]) == [*thought, "ok", "<|im_end|>"]
    assert answer_of(tokenizer, example.answers[1]) == [*EMPTY_THOUGHT, "no", "<|im_end|>"]


def test_in_several_turns_each_is_rendered_as_the_whole_dialogue_shows_it() -> None:
    tokenizer = chatml(THINKING)
    example = RowEncoder(tokenizer)(Row(1, CHAT, ([*says("ok"), *asks("x"), *says("no")],)))
    between = ["Ċ", "<|im_start|>", "user", "Ċ", "x", "<|im_end|>", "Ċ", "<|im_start|>", "assistant", "Ċ"]
    assert answer_of(tokenizer, example.answers[0]) == [
        *("ok", "<|im_end|>"),
        *(f"({piece})" for piece in between),
        *(*EMPTY_THOUGHT, "no", "<|im_end|>"),
    ]


def test_thoughts_that_a_later_turn_strips_are_refused() -> None:
    answer = [*says("<think>\nsure\n</think>\n\nok"), *asks("x"), *says("no")]
    assert refusal(chatml(THINKING), Row(1, CHAT, (answer,))).code == "template_not_incremental"


def test_a_multi_turn_answer_whose_earlier_prompt_held_a_thinking_block_is_refused() -> None:
    row = Row(1, CHAT, ([*says("ok"), *asks("x"), *says("no")],), template_kwargs={"enable_thinking": False})
    assert refusal(chatml(THINKING), row).code == "template_not_incremental"


def test_thoughts_of_earlier_turns_in_the_prompt_are_shown_as_they_are_served() -> None:
    tokenizer = chatml(THINKING)
    prompt = [*asks("hi"), *says("<think>\nsure\n</think>\n\nok"), *asks("x")]
    example = RowEncoder(tokenizer)(Row(1, prompt, (says("no"),), template_kwargs={"enable_thinking": False}))
    assert prompt_of(tokenizer, example) == [
        *(*ASKED, "ok", "<|im_end|>", "Ċ", "<|im_start|>", "user", "Ċ", "x", "<|im_end|>", "Ċ"),
        *("<|im_start|>", "assistant", "Ċ", *EMPTY_THOUGHT),
    ]


def test_a_thinking_block_that_the_prompt_opens_is_closed_by_the_answer() -> None:
    tokenizer = chatml(OPENED_THOUGHT)
    example = RowEncoder(tokenizer)(Row(1, CHAT, (says("<think>\nsure\n</think>\n\nok"), says("no"))))
    assert prompt_of(tokenizer, example) == [*ASKED, "<think>", "Ċ"]
    assert answer_of(tokenizer, example.answers[0]) == ["sure", "Ċ", "</think>", "Ċ", "Ċ", "ok", "<|im_end|>"]
    assert answer_of(tokenizer, example.answers[1]) == ["Ċ", "</think>", "Ċ", "Ċ", "no", "<|im_end|>"]


@pytest.mark.parametrize("template", [STRIPPED, CLOSED_THOUGHT, OPENED_THOUGHT, OPENED_FIELD])
@pytest.mark.parametrize("start", ["<think>\n", ""])
def test_an_answer_goes_on_with_the_block_that_the_prompt_opens_in_its_own_words(template: str, start: str) -> None:
    tokenizer = chatml(template)
    example = RowEncoder(tokenizer)(Row(1, CHAT, (says(f"{start}sure\n</think>\n\nok"),)))
    assert prompt_of(tokenizer, example) == [*ASKED, "<think>", "Ċ"]
    assert answer_of(tokenizer, example.answers[0]) == ["sure", "Ċ", "</think>", "Ċ", "Ċ", "ok", "<|im_end|>"]


def test_of_a_dialogue_only_the_answer_needs_thoughts() -> None:
    tokenizer = chatml(STRIPPED)
    prompt = [*asks("hi"), *says("ok"), *asks("x")]
    example = RowEncoder(tokenizer)(Row(1, prompt, (says("</think>no"), says("sure</think>"))))
    assert prompt_of(tokenizer, example)[-5:] == ["<|im_start|>", "assistant", "Ċ", "<think>", "Ċ"]
    assert answer_of(tokenizer, example.answers[0]) == ["</think>", "no", "<|im_end|>"]
    assert answer_of(tokenizer, example.answers[1]) == ["sure", "</think>", "<|im_end|>"]


@pytest.mark.parametrize("template", [STRIPPED, CLOSED_THOUGHT])
def test_an_answer_that_leaves_an_opened_block_open_is_told_to_close_it(template: str) -> None:
    error = refusal(chatml(template), Row(1, CHAT, (says("ok"),)))
    assert error.code == "thoughts_missing"
    assert "</think>" in str(error)


def test_thoughts_within_the_content_take_the_place_of_the_template_s_empty_block() -> None:
    tokenizer = chatml(FIELD)
    row = Row(1, CHAT, (says("<think>\nsure\n</think>\n\nok"), says("ok", reasoning_content="sure"), says("ok")))
    with_block, as_field, without = (answer_of(tokenizer, one) for one in _alone(tokenizer, row))
    assert with_block == as_field == ["<think>", "Ċ", "sure", "Ċ", "</think>", "Ċ", "Ċ", "ok", "<|im_end|>"]
    assert without == [*EMPTY_THOUGHT, "ok", "<|im_end|>"]


def _alone(tokenizer: PreTrainedTokenizerFast, row: Row) -> list[Answer]:
    """Each answer encoded as a row's only one: together, equal ones are refused."""
    return [RowEncoder(tokenizer)(replace(row, answers=(answer,))).answers[0] for answer in row.answers]


def test_the_end_of_the_dialogue_behind_the_end_of_its_last_turn_is_not_trained() -> None:
    tokenizer = byte_level(TWO_ENDS, WORDS, IM, eos="<|endoftext|>")
    example = RowEncoder(tokenizer)(Row(1, CHAT, ([*says("ok"), *asks("x"), *says("no")], says("fine"))))
    assert prompt_of(tokenizer, example) == ASKED
    between = ["Ċ", "<|im_start|>", "user", "Ċ", "x", "<|im_end|>", "Ċ", "<|im_start|>", "assistant", "Ċ"]
    assert answer_of(tokenizer, example.answers[0]) == [
        *("ok", "<|im_end|>"),
        *(f"({piece})" for piece in between),
        *("no", "<|im_end|>"),
    ]
    assert answer_of(tokenizer, example.answers[1]) == ["fine", "<|im_end|>"]
    example = RowEncoder(tokenizer)(Row(1, CHAT, (says("end"),)))  # a word that the end's token holds too
    assert answer_of(tokenizer, example.answers[0]) == ["e", "n", "d", "<|im_end|>"]


STRIPPING = CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")


@pytest.mark.parametrize(
    ("template", "message", "code"),
    [
        (STRIPPING, says("<think>sure</think>ok"), "template_drops_text"),
        (CHATML, says("ok", reasoning_content="sure"), "template_drops_text"),
        (CHATML, says("ok", tool_calls=[{"function": {"name": "lookup", "arguments": {}}}]), "template_drops_text"),
        (CHATML + "<think>", says("ok"), "template_not_incremental"),
        (CHATML.replace("{{ m.content }}", "{{ raise_exception('no') }}"), says("ok"), "template_refused"),
        (CHATML.replace("{{ m.content }}", "{{ m.content + '' }}"), says(None), "template_refused"),  # type: ignore[arg-type]
    ],
)
def test_a_template_that_loses_or_refuses_text_is_an_error(template: str, message: list[Any], code: str) -> None:
    prompt = [{"role": "user", "content": "hi"}]
    assert refusal(chatml(template), Row(1, prompt, (message,))).code == code


TOOLED = "{% if tools %}{% for t in tools %}[{{ t.function.name }}]{% endfor %}{% endif %}" + CHATML
TOOL = {"type": "function", "function": {"name": "x", "description": "", "parameters": {}}}


def test_tools_are_shown_by_the_template() -> None:
    tokenizer = chatml(TOOLED)
    example = RowEncoder(tokenizer)(Row(1, CHAT, (says("ok"),), tools=[TOOL]))
    assert prompt_of(tokenizer, example) == ["[", "x", "]", *ASKED]


def test_one_row_that_is_not_text_does_not_spoil_its_neighbours() -> None:
    encode = RowTokenizer(chatml(TOOLED), DataSpec(train="file-" + "0" * 21))
    torn = {"type": "function", "function": {"name": "\ud800"}}
    rows = [Row(1, CHAT, (says("ok"),)), Row(2, CHAT, (says("ok"),), tools=[torn]), Row(3, "hi", ("ok",))]
    first, second, third = encode(rows)
    assert isinstance(first, Encoded)
    assert isinstance(second, RowProblem)
    assert (second.row, second.code) == (2, "row_not_utf8")
    assert isinstance(third, Encoded)
    assert first.example.answers[0].ids.tolist() == third.example.answers[0].ids.tolist()


def test_tools_and_arguments_that_the_template_ignores_are_refused() -> None:
    tokenizer = chatml()
    lookup = {"type": "function", "function": {"name": "lookup"}}
    assert refusal(tokenizer, Row(1, CHAT, (says("ok"),), tools=[lookup])).code == "template_drops_tools"
    for kwargs, code in [
        ({"enable_thinking": False}, "template_kwarg_unknown"),
        ({"add_generation_prompt": False}, "template_kwarg_reserved"),
        ({"tokenize": True}, "template_kwarg_reserved"),
    ]:
        assert refusal(tokenizer, Row(1, CHAT, (says("ok"),), template_kwargs=kwargs)).code == code
    assert refusal(tokenizer, Row(1, "hi", ("ok",), tools=[TOOL])).code == "tools_without_messages"
