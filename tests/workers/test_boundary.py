"""The traps between prompt and answer, each with the tokens written out by hand."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from service.spec import AlignmentJob, DataSpec
from service.spec.rows import Row, RowError, RowProblem
from tests.encoding import RowEncoder
from tests.tokenizers import CHATML, GEMMA, LLAMA3, THINKING, VANISHING, byte_level, metaspace
from workers.data.examples import Answer, Example
from workers.data.prepare import inspect
from workers.data.tokenize import Encoded, RowTokenizer

WORDS = ["user", "assistant", "system", "tool", "model", "hi", "ok", "no", "sure", "fine", "x"]
IM = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
CHAT = [{"role": "user", "content": "hi"}]
ASKED = ["<|im_start|>", "user", "Ċ", "hi", "<|im_end|>", "Ċ", "<|im_start|>", "assistant", "Ċ"]
LLAMA3_SPECIAL = ["<|begin|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
EMPTY_THOUGHT = ["<think>", "Ċ", "Ċ", "</think>", "Ċ", "Ċ"]


def chatml(template: str = CHATML) -> PreTrainedTokenizerFast:
    return byte_level(template, WORDS, IM, eos="<|im_end|>", marks=["<think>", "</think>"])


def says(text: str, **fields: Any) -> list[Any]:
    return [{"role": "assistant", "content": text, **fields}]


def asks(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def prompt_of(tokenizer: PreTrainedTokenizerFast, example: Example) -> list[str]:
    pieces: list[str] = tokenizer.convert_ids_to_tokens(example.prompt.tolist())
    return pieces


def answer_of(tokenizer: PreTrainedTokenizerFast, answer: Answer) -> list[str]:
    """The pieces; those that do not count in parentheses."""
    pieces = tokenizer.convert_ids_to_tokens(answer.ids.tolist())
    return [piece if counts else f"({piece})" for piece, counts in zip(pieces, answer.mask, strict=True)]


def refusal(tokenizer: PreTrainedTokenizerFast, row: Row, **data: Any) -> RowError:
    with pytest.raises(RowError) as error:
        RowEncoder(tokenizer, **data)(row)
    return error.value


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


def llama3() -> PreTrainedTokenizerFast:
    return byte_level(LLAMA3, WORDS, LLAMA3_SPECIAL, eos="<|eot_id|>", bos="<|begin|>")


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


CHATS = {
    template: byte_level(
        template,
        WORDS,
        [*IM, *LLAMA3_SPECIAL, "<start_of_turn>", "<end_of_turn>"],
        eos="<|im_end|>",
        bos="<|begin|>",
        marks=["<think>", "</think>"],
    )
    for template in (CHATML, LLAMA3, GEMMA, THINKING, VANISHING)
}
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


TEXTS = st.lists(
    st.sampled_from(["hi", "ok", " ", "\n", "\n\n", "<think>", "</think>", "é", "▁", "x,", "<|im_end|>", "user\n"]),
    max_size=6,
).map("".join)


@settings(deadline=None)
@given(
    template=st.sampled_from([CHATML, LLAMA3, GEMMA, THINKING, VANISHING]),
    question=TEXTS,
    answer=TEXTS,
    thinks=st.sampled_from([None, True, False]),
)
def test_prompt_and_answer_are_the_templates_text_to_the_letter_or_an_error(
    template: str, question: str, answer: str, thinks: bool | None
) -> None:
    tokenizer = CHATS[template]
    kwargs = {"enable_thinking": thinks} if thinks is not None and "enable_thinking" in template else {}
    row = Row(1, asks(question), (says(answer),), template_kwargs=kwargs)
    try:
        example = RowEncoder(tokenizer)(row)
    except RowError as error:
        assert error.code in {"template_drops_text", "template_not_incremental"}  # noqa: PT017 - one of two outcomes
        return
    opened = tokenizer.apply_chat_template(asks(question), tokenize=False, add_generation_prompt=True, **kwargs)
    whole = tokenizer.apply_chat_template([*asks(question), *says(answer)], tokenize=False, **kwargs)
    assert tokenizer.decode(example.prompt) == opened
    said = tokenizer.decode(example.answers[0].ids)
    header = opened.removesuffix("<think>\n\n</think>\n\n")
    if whole.startswith(opened):
        header = opened
    end = "<|im_end|>"
    expected = whole[len(header) :].rstrip()
    while expected.endswith(end + end):  # EOS that the row spells itself
        expected = expected.removesuffix(end)
    assert said == expected
    assert said.endswith(("<|im_end|>", "<|eot_id|>", "<end_of_turn>"))
