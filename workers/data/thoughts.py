"""Thinking blocks at the seam of prompt and answer, where a template's dialogue says less, or more, than it serves.

Templates open a block in the generation prompt, add an empty one, or leave thoughts out of the dialogue. The model is
served the generation prompt, so an answer's own thoughts stand right behind it, as the model would write them.
"""

import re

from service.spec.rows import RowError

_EMPTY = r"<(\w*think\w*)>\s*</\1>\s*"
_EMPTY_LAST = re.compile(_EMPTY + r"\Z")
_EMPTY_FIRST = re.compile(r"\A" + _EMPTY)
_OPENED = re.compile(r"<(\w*think\w*)>\s*\Z")


def opened_thought(before: str) -> str:
    """The start of a thinking block that the text ends with, if any."""
    found = _OPENED.search(before)
    return found[0] if found else ""


def without_empty_thought(said: str) -> str:
    return _EMPTY_FIRST.sub("", said)


def following(whole: str, before: str, content: str) -> str:
    """What the last turn, whose message has this content, says behind `before`, the dialogue up to its answer.

    Raises RowError (`template_not_incremental`, `thoughts_missing`) where that is not to be told.
    """
    opened = opened_thought(before)
    header = before.removesuffix(opened)
    if whole.startswith(before):
        said = whole[len(before) :]
        own = _behind_empty(said, opened, content)
        return said if own is None else _continued(own, opened)
    shorter = _EMPTY_LAST.sub("", before)
    if shorter != before and whole.startswith(shorter):
        return whole[len(shorter) :]
    if opened and whole.startswith(header) and not opened_thought(whole):
        return _continued(content.rstrip() + _end(whole[len(header) :], content, _closing(opened)), opened)
    raise changes_text()


def changes_text() -> RowError:
    return RowError(
        "template_not_incremental",
        "the chat template changes earlier text when a turn is added (a thinking block, perhaps), so the answer has "
        "no exact start; make each assistant turn a row of its own, or set the template's thinking argument",
    )


def _behind_empty(said: str, opened: str, content: str) -> str | None:
    """What is said behind an empty block, if that is an answer with thoughts of its own: the template's is one more."""
    empty = _EMPTY_FIRST.match(opened + said)
    if empty is None:
        return None
    rest, own = said[empty.end() - len(opened) :], content.strip()
    thinks = f"</{empty[1]}>" in own and (opened or own.startswith(f"<{empty[1]}>"))
    return rest if thinks and rest.startswith(own) else None


def _end(tail: str, content: str, closing: str) -> str:
    """What the template puts behind the words of an answer; it shows the answer whole or without its thoughts."""
    if closing not in content:
        raise RowError(
            "thoughts_missing",
            f"the chat template's generation prompt opens a thinking block that the answer does not close; begin the "
            f"answer's content with its thoughts and {closing}",
        )
    shown = without_empty_thought(tail).lstrip()
    for words in (content.strip(), content.rpartition(closing)[2].strip()):
        if shown.startswith(words):
            return shown[len(words) :]
    raise changes_text()


def _continued(said: str, opened: str) -> str:
    """`said` as it goes on behind the start of its block, which the prompt has already."""
    tag = opened.rstrip()
    if not tag or not said.lstrip().startswith(tag):
        return said
    return said.lstrip().removeprefix(tag).removeprefix(opened[len(tag) :])


def _closing(opened: str) -> str:
    return f"</{opened[1:]}".rstrip()
