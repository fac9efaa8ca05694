"""The traps between prompt and answer, each with the tokens written out by hand."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from service.spec import AlignmentJob
from service.spec.rows import Row
from tests.dialogues import (
    ASKED,
    CHAT,
    EMPTY_THOUGHT,
    IM,
    WORDS,
    answer_of,
    asks,
    chatml,
    llama3,
    prompt_of,
    refusal,
    says,
)
from tests.encoding import RowEncoder
from tests.tokenizers import CHATML, GEMMA, THINKING, TWO_ENDS, byte_level, metaspace
from workers.data.prepare import inspect


def test_the_newline_that_chatml_puts_after_the_end_of_turn_is_not_trained() -> None:
    tokenizer = chatml()
    example = RowEncoder(tokenizer)(Row(1, CHAT, (says("ok"), says("no"))))
    assert prompt_of(tokenizer, example) == ASKED
    assert answer_of(tokenizer, example.answers[0]) == ["ok", "<|im_end|>"]
    assert answer_of(tokenizer, example.answers[1]) == ["no", "<|im_end|>"]


def test_an_end_of_turn_that_is_not_eos_ends_the_answer_alone() -> None:
    tokenizer = byte_level(CHATML, WORDS, IM, eos="<|endoftext|>")
    example = RowEncoder(tokenizer)(Row(1, CHAT, (says("ok"),)))
    assert answer_of(tokenizer, example.answers[0]) == ["ok", "<|im_end|>"]


def test_user_turns_and_headers_within_an_answer_do_not_count() -> None:
    tokenizer = chatml()
    example = RowEncoder(tokenizer)(Row(1, CHAT, ([*says("ok"), *asks("sure"), *says("fine")],)))
    between = ["Ċ", "<|im_start|>", "user", "Ċ", "sure", "<|im_end|>", "Ċ", "<|im_start|>", "assistant", "Ċ"]
    assert answer_of(tokenizer, example.answers[0]) == [
        *("ok", "<|im_end|>"),
        *(f"({piece})" for piece in between),
        *("fine", "<|im_end|>"),
    ]


def test_with_train_on_completion_everything_after_the_prompt_counts() -> None:
    tokenizer = chatml()
    answer = [*says("ok"), *asks("sure"), *says("fine")]
    example = RowEncoder(tokenizer, train_on="completion")(Row(1, CHAT, (answer,)))
    assert prompt_of(tokenizer, example) == ASKED
    assert answer_of(tokenizer, example.answers[0]) == [
        *("ok", "<|im_end|>", "Ċ", "<|im_start|>", "user", "Ċ", "sure", "<|im_end|>", "Ċ"),
        *("<|im_start|>", "assistant", "Ċ", "fine", "<|im_end|>"),
    ]


def test_answers_that_start_with_a_tool_message_share_a_prompt_without_generation_prompt() -> None:
    tokenizer = chatml()
    prompt = [*asks("hi"), *says("ok")]
    example = RowEncoder(tokenizer)(Row(1, prompt, ([{"role": "tool", "content": "x"}, *says("fine")],)))
    assert prompt_of(tokenizer, example) == [*ASKED, "ok", "<|im_end|>", "Ċ"]
    header = ["<|im_start|>", "tool", "Ċ", "x", "<|im_end|>", "Ċ", "<|im_start|>", "assistant", "Ċ"]
    assert answer_of(tokenizer, example.answers[0]) == [*(f"({piece})" for piece in header), "fine", "<|im_end|>"]


def test_such_a_prompt_shows_its_last_turn_as_the_dialogue_goes_on_to_show_it() -> None:
    tokenizer = chatml(THINKING)  # alone, the prompt's last turn would have an empty thinking block
    prompt = [*asks("hi"), *says("ok")]
    example = RowEncoder(tokenizer)(Row(1, prompt, ([*asks("x"), *says("fine")], [*asks("no"), *says("no")])))
    assert prompt_of(tokenizer, example) == [*ASKED, "ok", "<|im_end|>", "Ċ"]
    header = ["<|im_start|>", "user", "Ċ", "x", "<|im_end|>", "Ċ", "<|im_start|>", "assistant", "Ċ"]
    assert answer_of(tokenizer, example.answers[0]) == [
        *(f"({piece})" for piece in header),
        *(*EMPTY_THOUGHT, "fine", "<|im_end|>"),
    ]


def test_a_prefill_is_continued_within_its_turn() -> None:
    tokenizer = chatml()
    example = RowEncoder(tokenizer)(Row(1, [*asks("hi"), *says("sure,")], (says(" ok"), says(" no"))))
    assert prompt_of(tokenizer, example) == [*ASKED, "sure", ","]
    assert answer_of(tokenizer, example.answers[0]) == ["Ġ", "ok", "<|im_end|>"]
    assert answer_of(tokenizer, example.answers[1]) == ["Ġ", "no", "<|im_end|>"]


def test_a_prefill_whose_trailing_space_the_template_trims_gives_it_to_the_answer() -> None:
    tokenizer = llama3()
    example = RowEncoder(tokenizer)(Row(1, [*asks("hi"), *says("sure, ")], (says("ok"),)))
    assert prompt_of(tokenizer, example)[-2:] == ["sure", ","]
    assert answer_of(tokenizer, example.answers[0]) == ["Ġ", "ok", "<|eot_id|>"]


def test_a_prefill_that_only_one_answer_continues_is_refused() -> None:
    row = Row(1, [*asks("hi"), *says("sure")], (says("ok"), [*asks("x"), *says("no")]))
    assert refusal(chatml(), row).code == "prefill_unusable"


LLAMA3_PROMPT = [
    *("<|begin|>", "<|start_header_id|>", "user", "<|end_header_id|>", "Ċ", "Ċ", "hi", "<|eot_id|>"),
    *("<|start_header_id|>", "assistant", "<|end_header_id|>", "Ċ", "Ċ"),
]


def test_bos_stands_once_where_both_template_and_tokenizer_write_it() -> None:
    tokenizer = llama3()
    example = RowEncoder(tokenizer)(Row(1, CHAT, (says("ok"), says("no"))))
    assert prompt_of(tokenizer, example) == LLAMA3_PROMPT
    assert answer_of(tokenizer, example.answers[0]) == ["ok", "<|eot_id|>"]


def test_bos_stands_once_before_strings_whether_they_spell_it_or_not() -> None:
    tokenizer = llama3()
    for prompt in ("hi", "<|begin|>hi"):
        example = RowEncoder(tokenizer)(Row(1, prompt, ("ok", "no")))
        assert prompt_of(tokenizer, example) == ["<|begin|>", "hi"]
        assert answer_of(tokenizer, example.answers[0]) == ["ok", "<|eot_id|>"]


def test_a_gemma_turn_ends_at_its_end_of_turn_and_not_at_eos_or_newline() -> None:
    special = ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = byte_level(GEMMA, WORDS, special, eos="<eos>", bos="<bos>")
    example = RowEncoder(tokenizer)(Row(1, CHAT, (says("ok"), says("no"))))
    assert prompt_of(tokenizer, example) == [
        *("<bos>", "<start_of_turn>", "user", "Ċ", "hi", "<end_of_turn>", "Ċ", "<start_of_turn>", "model", "Ċ")
    ]
    assert answer_of(tokenizer, example.answers[0]) == ["ok", "<end_of_turn>"]


def test_a_template_without_an_end_of_turn_gets_eos_in_place_of_its_white_space() -> None:
    plain = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    tokenizer = chatml(plain)
    example = RowEncoder(tokenizer)(Row(1, CHAT, ([*says("ok"), *asks("x"), *says("no")],)))
    assert prompt_of(tokenizer, example) == ["user", ":", "Ġ", "hi", "Ċ", "assistant", ":", "Ġ"]
    assert answer_of(tokenizer, example.answers[0]) == [
        *("ok", "(Ċ)", "(user)", "(:)", "(Ġ)", "(x)", "(Ċ)", "(assistant)", "(:)", "(Ġ)", "no", "<|im_end|>")
    ]


def test_eos_stands_once_at_the_end_of_a_string_however_often_it_is_spelled() -> None:
    tokenizer = chatml()
    row = Row(1, "hi", ("ok", "no<|im_end|>", "sure<|im_end|><|im_end|>"))
    answers = [answer_of(tokenizer, answer) for answer in RowEncoder(tokenizer)(row).answers]
    assert answers == [["ok", "<|im_end|>"], ["no", "<|im_end|>"], ["sure", "<|im_end|>"]]


def test_white_space_behind_the_end_that_a_string_spells_is_dropped() -> None:
    tokenizer = chatml()
    row = Row(1, "hi", ("ok<|im_end|>\n", "no<|im_end|> <|im_end|> \n", "sure<|endoftext|>\n", "fine\n"))
    answers = [answer_of(tokenizer, answer) for answer in RowEncoder(tokenizer)(row).answers]
    assert answers == [
        ["ok", "<|im_end|>"],
        ["no", "<|im_end|>"],
        ["sure", "<|endoftext|>"],
        ["fine", "Ċ", "<|im_end|>"],
    ]


@pytest.mark.parametrize("eos", ["<|im_end|>", "<|endoftext|>"])
@pytest.mark.parametrize("template", [CHATML, THINKING, TWO_ENDS])
@pytest.mark.parametrize("content", ["ok<|im_end|>", "ok<|im_end|>\n", "\nok<|im_end|>\n<|im_end|>\n"])
def test_a_message_that_spells_the_end_of_its_turn_ends_there(eos: str, template: str, content: str) -> None:
    tokenizer = byte_level(template, WORDS, IM, eos=eos, marks=["<think>", "</think>"])
    example = RowEncoder(tokenizer)(Row(1, CHAT, (says(content), says(f"<think>\n\n</think>\n\n{content}no"))))
    assert answer_of(tokenizer, example.answers[0])[-2:] == ["ok", "<|im_end|>"]
    assert answer_of(tokenizer, example.answers[1])[-2:] == ["no", "<|im_end|>"]


def test_turns_that_spell_their_end_have_it_once_and_the_template_s_own_does_not_count() -> None:
    tokenizer = chatml()
    example = RowEncoder(tokenizer)(Row(1, CHAT, ([*says("ok<|im_end|>\n"), *asks("x"), *says("no")],)))
    assert answer_of(tokenizer, example.answers[0])[:4] == ["ok", "<|im_end|>", "(Ċ)", "(<|im_end|>)"]


@pytest.mark.parametrize("scheme", ["always", "first", "never", "legacy"])
def test_an_answer_that_continues_a_word_neither_merges_with_it_nor_gets_a_space(scheme: str) -> None:
    tokenizer = metaspace(["▁x", "▁capital", "ital"], eos="</s>", scheme=scheme)
    example = RowEncoder(tokenizer)(Row(1, "x cap", ("ital", "tain")))
    first = ["▁x"] if scheme != "never" else ["x"]
    assert tokenizer.convert_ids_to_tokens(tokenizer("x capital")["input_ids"]) == ["<s>", *first, "▁capital"]
    assert prompt_of(tokenizer, example) == ["<s>", *first, "▁cap"]
    assert answer_of(tokenizer, example.answers[0]) == ["ital", "</s>"]
    assert answer_of(tokenizer, example.answers[1]) == ["t", "a", "i", "n", "</s>"]


def test_a_sentencepiece_answer_after_a_template_has_the_one_space_that_it_writes() -> None:
    template = (
        "<s>{% for m in messages %}{% if m.role == 'user' %}[i] {{ m.content }} [/i]"
        "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
    )
    tokenizer = metaspace(["▁ok", "▁[/i]"], eos="</s>", scheme="always", template=template)
    example = RowEncoder(tokenizer)(Row(1, CHAT, (says("ok"),)))
    assert prompt_of(tokenizer, example) == ["<s>", "▁[", "i", "]", "▁", "h", "i", "▁[/i]"]
    assert answer_of(tokenizer, example.answers[0]) == ["▁ok", "▁", "</s>"]


def test_no_token_merges_over_the_seam_of_byte_level_texts() -> None:
    tokenizer = byte_level(None, ["is", "Ġblack", "ack"], IM, eos="<|im_end|>")
    example = RowEncoder(tokenizer)(Row(1, "is bl", ("ack", "ue")))
    assert tokenizer.convert_ids_to_tokens(tokenizer("is black")["input_ids"]) == ["is", "Ġblack"]
    assert prompt_of(tokenizer, example) == ["is", "Ġbl"]
    assert answer_of(tokenizer, example.answers[0]) == ["ack", "<|im_end|>"]
    assert answer_of(tokenizer, example.answers[1]) == ["u", "e", "<|im_end|>"]


def test_a_tokenizer_that_cannot_continue_a_word_says_so(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"[unk]": 0, "b": 1, "a": 2, "1": 3, "[end]": 4}, unk_token="[unk]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(["[end]"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="[end]", unk_token="[unk]")
    source = tmp_path / "rows.jsonl"
    source.write_text('{"prompt": "b", "chosen": "a", "rejected": "1"}')
    job = AlignmentJob.model_validate({"model": "/m", "data": {"train": "file-" + "0" * 21}})
    report = inspect(job, source, tokenizer, lambda _: None)
    assert report.used == 1
    assert [advice.code for advice in report.warnings] == ["continuation_inexact"]
