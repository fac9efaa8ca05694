"""Rows of random text, and of anything at all: exact, or an error that says why."""

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.spec import DataSpec
from service.spec.rows import Row, RowError, RowProblem
from tests.dialogues import IM, LLAMA3_SPECIAL, WORDS, asks, chatml, says
from tests.encoding import RowEncoder
from tests.tokenizers import CHATML, GEMMA, LLAMA3, THINKING, VANISHING, byte_level
from workers.data.tokenize import Encoded, RowTokenizer

TOOLED = CHATML + "{{ tools }}"
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
FUZZED = {
    template: RowTokenizer(chatml(template), DataSpec(train="file-" + "0" * 21))
    for template in (CHATML, LLAMA3, THINKING, TOOLED)
}
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
    # an end that the row spells itself stands once
    expected = re.sub(r"(<\|im_end\|>)(\s*<\|im_end\|>)+\Z", r"\1", whole[len(header) :].rstrip())
    assert said == expected
    assert said.endswith(("<|im_end|>", "<|eot_id|>", "<end_of_turn>"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SAID = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": JSON}, optional={"tool_calls": JSON, "name": JSON}
)


@settings(deadline=None)
@given(template=st.sampled_from(list(FUZZED)), before=SAID, answer=SAID, tools=JSON, prefill=st.booleans())
def test_a_row_of_anything_is_encoded_or_told_why_not(
    template: str, before: Any, answer: Any, tools: Any, prefill: bool
) -> None:
    prompt = [*asks("hi"), before] if prefill else [*asks("hi"), before, *asks("ok")]
    encode = FUZZED[template]
    (result,) = encode([Row(1, prompt, ([answer],), tools=tools)])
    assert isinstance(result, Encoded | RowProblem)
