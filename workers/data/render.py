"""Rows to text: the prompt as it is served, and what follows it, in pieces that count or not.

With messages the chat template decides the text, and the prompt ends where its generation prompt does: what the model
is given when it is served. An assistant message at the end of the prompt is a beginning that the answers continue.
Templates that add an empty thinking block to the generation prompt but leave it out of the dialogue are followed: the
answer starts behind the block (`workers.data.thoughts`). What a template changes beyond that, or leaves out, is a
`RowError`.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jinja2

from service.spec import TrainOn
from service.spec.rows import THOUGHTS, Row, RowError
from workers.data.alternatives import any_of
from workers.data.thoughts import changes_text, following, opened_thought, without_empty_thought
from workers.errors import AttemptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHOWN = 300

Dialogue = Sequence[Mapping[str, Any]]

_LONGEST_CLOSING = 256
_WORDS = ("content", *THOUGHTS)  # what an assistant's message may say


@dataclass(frozen=True)
class Piece:
    """Text after the prompt. Its tokens count, or do not."""

    text: str
    counted: bool


@dataclass(frozen=True)
class Rendered:
    """A row as text. Of a templated one the prompt holds its special tokens."""

    prompt: str
    answers: tuple[tuple[Piece, ...], ...]
    templated: bool


class Renderer:
    """Turns a `Row` into text; raises `RowError` where template and row do not go together."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", special: Sequence[str], train_on: TrainOn) -> None:
        self._tokenizer = tokenizer
        self._special = tuple(special)
        run = f"(?:{any_of(special)})+"
        self._closing = re.compile(rf"({run})(?:\s+{run})*\s*\Z")  # an end of turn, and perhaps one of the dialogue
        self._ends = re.compile(rf"(?:(?:{any_of(special)})\s*)+\Z")
        self._next_end = re.compile(rf"\s*({any_of(special)})")
        self._eos = str(tokenizer.eos_token)
        self._train_on = train_on
        # `documents` is for the template; the other named parameters are for us to set
        self._reserved = set(inspect.signature(tokenizer.apply_chat_template).parameters) - {"documents", "kwargs"}

    def __call__(self, row: Row) -> Rendered:
        if isinstance(row.prompt, str):
            if row.tools or row.template_kwargs:
                raise RowError("tools_without_messages", "`tools` and template arguments need a prompt of messages")
            texts = (self._ended(str(text)) for text in row.answers)
            return Rendered(row.prompt, tuple((Piece(text, True),) for text in texts), templated=False)
        render = self._template(row)
        prompt: Dialogue = row.prompt
        answers: list[Dialogue] = [answer for answer in row.answers if not isinstance(answer, str)]
        starts = [answer[0]["role"] == "assistant" for answer in answers]
        continued = ""
        if prompt[-1]["role"] == "assistant" and any(starts):
            opened = render(prompt, continue_final_message=True)
            continued = _beginning(prompt, all(starts))
            prompt = prompt[:-1]
        elif all(starts):
            opened = render(prompt, add_generation_prompt=True)
        else:
            opened = self._closed(render, prompt, answers)
        _check_tools(row.tools, opened)
        pieces = tuple(self._pieces(render, opened, prompt, answer, continued, all(starts)) for answer in answers)
        return Rendered(opened, pieces, templated=True)

    def _pieces(
        self, render: "_Template", opened: str, prompt: Dialogue, answer: Dialogue, continued: str, turn_open: bool
    ) -> tuple[Piece, ...]:
        """The text after `opened`: each assistant's turn (counted), and all between them (not).

        turn_open: `opened` ends where the answer's first message begins. continued: what that message begins with.
        """
        said_by = answer
        if continued:
            answer = [{**answer[0], "content": continued + _string(answer[0].get("content"))}, *answer[1:]]
        whole = render([*prompt, *answer])
        turns = [i for i, message in enumerate(answer) if message["role"] == "assistant"]
        pieces: list[Piece] = []
        done, rest = opened, ""  # rest: what the template puts after an end of turn
        for i in turns:
            before = opened if i == 0 and turn_open else render([*prompt, *answer[:i]], add_generation_prompt=True)
            if not before.startswith(done + rest):
                raise changes_text()
            if i == turns[-1]:
                said = following(whole, before, _string(answer[i].get("content")))
            else:
                said = self._turn(whole, before, render([*prompt, *answer[: i + 1]]))
            _check_said(said_by[i], before, said)
            pieces.append(Piece(before[len(done) :], False))
            end = self._end_of_turn(said, said_by[i])
            pieces.append(Piece(said[:end], True))
            done, rest = before + said[:end], said[end:]
        if self._train_on is TrainOn.COMPLETION:
            return (Piece("".join(piece.text for piece in pieces), True),)
        return tuple(piece for piece in pieces if piece.text)

    def _ended(self, text: str) -> str:
        """A string without the white space behind a special token that closes it, and with EOS once there."""
        words = text.rstrip()
        return _once(words, self._eos) if words.endswith(self._special) else text

    def _end_of_turn(self, said: str, message: Mapping[str, Any]) -> int:
        """Where the turn ends in `said`: what the template adds behind its end token is no part of it."""
        content = _string(message.get("content"))
        words = content.rstrip()
        if words.endswith(self._special):  # by the row, so that where the template's own begin is not to be told
            return self._spelled_end(said, words)
        if closing := self._closing.search(said, max(0, len(said) - _LONGEST_CLOSING)):
            return closing.end(1)
        end = len(said.rstrip())
        own = content[len(words) :]
        return end + len(own) if said.startswith(own, end) else end

    def _spelled_end(self, said: str, words: str) -> int:
        """Where a turn ends whose words close with a special token: behind it, if the template then writes it again."""
        own = self._ends.search(words, max(0, len(words) - _LONGEST_CLOSING))
        all_ = self._ends.search(said, max(0, len(said) - _LONGEST_CLOSING))
        if own and all_ and all_[0].startswith(own[0]):
            again = self._next_end.match(said, all_.start() + len(own[0]))
            if again and words.endswith(again[1]):
                return all_.start() + len(_once(own[0], again[1]))
        return len(said.rstrip())

    def _turn(self, whole: str, before: str, closed: str) -> str:
        """What follows `before` up to the end of a turn that is not the dialogue's last.

        closed: the dialogue as if it were. Some templates show a thinking block in the last turn alone, or put the end
        of the dialogue behind it.
        """
        if closed.startswith(before):
            said = closed[len(before) :]
            open_ended = said
            if (closing := self._closing.search(said)) and said[closing.end(1) :].strip():
                open_ended = said[: said.rstrip().rfind(said[closing.end(1) :].strip())]
            for text in (said, without_empty_thought(said), open_ended):
                if whole.startswith(before + text):
                    return text
        raise changes_text()

    def _closed(self, render: "_Template", prompt: Dialogue, answers: Sequence[Dialogue]) -> str:
        """The prompt without a header for its answers, some of which start with a user or tool message."""
        closed = render(prompt)
        followed = [render([*prompt, answer[0]]) for answer in answers]
        if all(text.startswith(closed) for text in followed) or len(prompt) == 1:
            return closed
        before = render(prompt[:-1], add_generation_prompt=True)
        return before + self._turn(followed[0], before, closed)

    def _template(self, row: Row) -> "_Template":
        if self._tokenizer.chat_template is None:
            raise AttemptError(
                "chat_template_missing",
                "The rows are dialogues but the model's tokenizer has no chat template; add one, or use rows whose "
                "prompt, chosen and rejected are strings.",
            )
        kwargs = row.template_kwargs or {}
        if clash := sorted(self._reserved & set(kwargs)):
            raise RowError("template_kwarg_reserved", f"these are not for a row to set: {', '.join(clash)}")
        with _refusals():
            source = self._tokenizer.get_chat_template(tools=row.tools)
        if unknown := sorted(name for name in kwargs if not _mentions(source, name)):
            raise RowError("template_kwarg_unknown", f"the chat template knows no {', '.join(unknown)}")
        return _Template(self._tokenizer, row.tools, kwargs)


@dataclass(frozen=True)
class _Template:
    """The chat template with the arguments of one row."""

    tokenizer: "PreTrainedTokenizerBase"
    tools: Any
    kwargs: Mapping[str, Any]

    def __call__(self, messages: Dialogue, **how: bool) -> str:
        with _refusals():
            text: str = self.tokenizer.apply_chat_template(
                list(messages), tools=self.tools, tokenize=False, **how, **self.kwargs
            )
        return text


@contextmanager
def _refusals() -> Iterator[None]:
    """A template is a program over the row: it refuses, say, two user turns in a row, or stumbles on a null."""
    try:
        yield
    except (jinja2.TemplateError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        reason = str(error).partition("\n")[0][:_SHOWN]  # some quote the whole dialogue
        raise RowError("template_refused", f"the model's chat template refuses the dialogue: {reason}") from error


def _once(words: str, end: str) -> str:
    """The words with the `end` that they close with once, where they close with several."""
    while words.endswith(end) and (shorter := words.removesuffix(end).rstrip()).endswith(end):
        words = shorter
    return words


def _beginning(prompt: Dialogue, all_continue: bool) -> str:
    last = prompt[-1]
    if not all_continue or not isinstance(last.get("content"), str) or last.get("tool_calls"):
        raise RowError(
            "prefill_unusable",
            "an assistant message at the end of the prompt is one that all answers continue: it needs text alone, and "
            "answers that start with an assistant message",
            "prompt",
        )
    return _string(last["content"])


def _check_said(message: Mapping[str, Any], before: str, said: str) -> None:
    """Templates leave out silently what they do not know, such as thoughts or tool calls."""
    squeezed = ""
    said = opened_thought(before) + said  # the start of a message that thinks is in the prompt
    for name in _WORDS:
        words = _string(message.get(name)).strip()
        if words and words not in said:
            squeezed = squeezed or "".join(said.split())
            if "".join(words.split()) not in squeezed:
                raise RowError("template_drops_text", f"the chat template leaves out part of an answer's `{name}`")
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if (name := _function_name(call)) and name not in said:
            raise RowError("template_drops_text", f"the chat template leaves out the call of the tool '{name}'")


def _check_tools(tools: Sequence[Mapping[str, Any]] | None, prompt: str) -> None:
    for tool in tools or ():
        if (name := _function_name(tool)) and name not in prompt:
            raise RowError("template_drops_tools", f"the chat template does not show the tool '{name}'", "tools")


def _function_name(tool: Any) -> str:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    return _string(function.get("name")) if isinstance(function, Mapping) else ""


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


@lru_cache(maxsize=256)
def _mentions(template: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", template) is not None
