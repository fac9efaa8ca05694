"""The boundary between prompt and answer, and the end of the answer."""

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from service.spec.rows import Message, Row, RowError
from tests.encoding import RowEncoder
from tests.models import CHATML, make_tokenizer
from workers.data.examples import Answer
from workers.errors import AttemptError

USER = {"role": "user", "content": "What is 3?"}


def says(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def counted(tokenizer: PreTrainedTokenizerFast, answer: Answer) -> str:
    text: str = tokenizer.decode(answer.ids[answer.mask])
    return text


def test_a_dialogue_ends_at_the_generation_prompt_and_its_answer_at_the_end_of_turn(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    pair = RowEncoder(tokenizer)(Row(1, [USER], (says("It is 3."), says("No."))))
    assert tokenizer.decode(pair.prompt) == "<|im_start|>user\nWhat is 3?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(pair.answers[0].ids) == "It is 3.<|im_end|>"  # without the template's newline
    assert tokenizer.decode(pair.answers[1].ids) == "No.<|im_end|>"
    assert pair.answers[0].mask.all()


def test_only_the_assistants_turns_count_in_an_answer_of_several_turns(tokenizer: PreTrainedTokenizerFast) -> None:
    answer = [*says("3."), {"role": "user", "content": "Sure?"}, *says("Yes.")]
    pair = RowEncoder(tokenizer)(Row(1, [USER], (answer, says("No."))))
    assert "Sure?" in tokenizer.decode(pair.answers[0].ids)
    assert counted(tokenizer, pair.answers[0]) == "3.<|im_end|>Yes.<|im_end|>"


def test_strings_are_tokenised_apart_so_that_no_token_spans_the_boundary(tokenizer: PreTrainedTokenizerFast) -> None:
    whole = tokenizer("What is the capital")["input_ids"]
    pair = RowEncoder(tokenizer)(Row(1, "What is the cap", ("ital", "tain")))
    joined = [*pair.prompt, *pair.answers[0].ids]
    assert tokenizer.decode(pair.prompt) == "What is the cap"
    assert counted(tokenizer, pair.answers[0]) == "ital<|im_end|>"
    assert joined[:-1] != whole  # the tokens that would have merged over the boundary


def test_eos_is_added_exactly_once(tokenizer: PreTrainedTokenizerFast) -> None:
    pair = RowEncoder(tokenizer)(Row(1, "a", ("b", "c<|im_end|>")))
    for answer in pair.answers:
        assert (answer.ids == tokenizer.eos_token_id).sum() == 1
        assert answer.ids[-1] == tokenizer.eos_token_id


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    rewriting = make_tokenizer("{{ messages | length }}" + CHATML)
    with pytest.raises(RowError) as error:
        RowEncoder(rewriting)(Row(1, [USER], (says("Yes."), says("No."))))
    assert error.value.code == "template_not_incremental"


def test_dialogues_need_a_chat_template() -> None:
    with pytest.raises(AttemptError) as error:
        RowEncoder(make_tokenizer(chat_template=None))(Row(1, [USER], (says("Yes."), says("No."))))
    assert error.value.code == "chat_template_missing"


def test_a_tokenizer_without_eos_is_refused() -> None:
    endless = make_tokenizer()
    endless.eos_token = None
    with pytest.raises(AttemptError) as error:
        RowEncoder(endless)
    assert error.value.code == "tokenizer_unusable"


def test_the_key_of_a_pair_changes_with_ids_and_masks_and_nothing_else(tokenizer: PreTrainedTokenizerFast) -> None:
    encode = RowEncoder(tokenizer)
    pair, same = encode(Row(1, "a", ("b", "c"))), encode(Row(99, "a", ("b", "c")))
    shifted = encode(Row(1, "a", ("c", "b")))
    masked = Answer(pair.answers[0].ids, np.zeros_like(pair.answers[0].mask))
    assert pair.key == same.key
    assert len({pair.key, shifted.key, type(pair)(1, pair.prompt, (masked, pair.answers[1])).key}) == 3
