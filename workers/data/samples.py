"""Rows as the model will see them: the tokens of prompt and answers, and which of them count."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING

from service.spec.data_preview import SHOWN_TOKENS, SampleAnswer, SampleRow, Token, TokenRole, TokenSequence
from service.spec.rows import Row, Text
from workers.data.encode import Usable
from workers.data.examples import Answer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHOWN_CHARACTERS = 4 * SHOWN_TOKENS


def token_sample(usable: Usable, tokenizer: "PreTrainedTokenizerBase") -> SampleRow:
    """usable: with its example."""
    example, facts = usable.example, usable.facts
    assert example is not None
    names = _names(len(example.answers))
    answers = zip(names, example.answers, facts.answer_lengths, strict=True)
    return SampleRow(
        row=example.row,
        prompt=TokenSequence(
            tokens=_tokens(tokenizer, example.prompt[-SHOWN_TOKENS:].tolist(), repeat(TokenRole.PROMPT)),
            length=len(example.prompt),
            cut=facts.prompt_length - len(example.prompt),
        ),
        answers=[_answer(tokenizer, name, answer, whole) for name, answer, whole in answers],
        label=example.label,
        weight=example.weight,
        margin=example.margin,
    )


def text_sample(row: Row) -> SampleRow:
    """Without a tokenizer: the texts, of which nothing is known to be cut."""
    prompt, answers = _text(row.prompt), [_text(answer) for answer in row.answers]
    return SampleRow(
        row=row.number,
        prompt=TokenSequence(
            tokens=[Token(id=None, text=prompt[-_SHOWN_CHARACTERS:], role=TokenRole.PROMPT)],
            length=len(prompt),
            cut=0,
        ),
        answers=[
            SampleAnswer(
                name=name,
                tokens=[Token(id=None, text=answer[:_SHOWN_CHARACTERS], role=TokenRole.COMPLETION)],
                length=len(answer),
                cut=0,
            )
            for name, answer in zip(_names(len(answers)), answers, strict=True)
        ],
        label=row.label,
        weight=row.weight,
        margin=row.margin,
    )


def _answer(tokenizer: "PreTrainedTokenizerBase", name: str, answer: Answer, whole: int) -> SampleAnswer:
    roles = (TokenRole.COMPLETION if counts else TokenRole.MASKED for counts in answer.mask.tolist())
    return SampleAnswer(
        name=name,
        tokens=_tokens(tokenizer, answer.ids[:SHOWN_TOKENS].tolist(), roles),
        length=len(answer.ids),
        cut=max(0, whole - len(answer.ids)),
    )


def _tokens(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int], roles: Iterator[TokenRole]) -> list[Token]:
    texts = _texts(tokenizer, ids)
    return [Token(id=one, text=text, role=role) for one, text, role in zip(ids, texts, roles, strict=False)]


def _texts(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> Iterator[str]:
    """What each token adds. A character that is several tokens is told with the last of them."""
    if not tokenizer.is_fast:
        for one in ids:
            yield str(tokenizer.decode([one]))
        return
    from tokenizers.decoders import DecodeStream

    stream = DecodeStream(skip_special_tokens=False)
    backend = tokenizer.backend_tokenizer
    for one in ids:
        yield stream.step(backend, one) or ""


def _names(num: int) -> list[str]:
    """As the losses call them."""
    match num:
        case 1:
            return ["completion"]
        case 2:
            return ["chosen", "rejected"]
        case _:
            return [f"rank {place}" for place in range(1, num + 1)]


def _text(text: Text) -> str:
    if isinstance(text, str):
        return text
    return "\n".join(f"{message.get('role')}: {message.get('content')}" for message in text)
