"""Making an example fit: the limits of prompt and answer first, then the one of both together."""

from dataclasses import replace

import numpy as np

from service.spec import DataSpec, Truncation
from service.spec.rows import RowError
from workers.data.examples import Answer, Example, Ids


def fit(example: Example, data: DataSpec, bos: int | None) -> Example:
    """Cut what is too long, as `DataSpec` says; the same object where nothing is.

    bos: a token that stays at the start of a prompt that is cut.
    Raises RowError `row_too_long` under `truncation: error`, `prompt_too_long` when the prompt leaves no room.
    """
    prompt, answers = example.prompt, example.answers
    if data.max_prompt_length is not None and len(prompt) > data.max_prompt_length:
        _refuse(data, "prompt", len(prompt), "max_prompt_length", data.max_prompt_length)
        prompt = _keep_end(prompt, data.max_prompt_length, bos)
    longest = max(len(answer.ids) for answer in answers)
    if data.max_completion_length is not None and longest > data.max_completion_length:
        _refuse(data, "longest answer", longest, "max_completion_length", data.max_completion_length)
        answers = tuple(_keep_start(answer, data.max_completion_length) for answer in answers)
        longest = data.max_completion_length
    if len(prompt) + longest > data.max_length:
        _refuse(data, "prompt + answer", len(prompt) + longest, "max_length", data.max_length)
        if data.truncation is Truncation.KEEP_END:
            prompt = _keep_end(prompt, max(data.max_length - longest, 1), bos)
        room = data.max_length - len(prompt)
        if room < 1:
            raise RowError("prompt_too_long", f"the prompt alone has {len(prompt)} tokens", "prompt")
        answers = tuple(_keep_start(answer, room) for answer in answers)
    if prompt is example.prompt and answers is example.answers:
        return example
    return replace(example, prompt=prompt, answers=answers)


def _refuse(data: DataSpec, what: str, length: int, field: str, limit: int) -> None:
    if data.truncation is Truncation.ERROR:
        raise RowError("row_too_long", f"{what}: {length} tokens, data.{field} is {limit}")


def _keep_end(prompt: Ids, length: int, bos: int | None) -> Ids:
    if length >= len(prompt):
        return prompt
    if prompt[0] == bos and length > 1:
        return np.concatenate([prompt[:1], prompt[len(prompt) - length + 1 :]])
    return prompt[len(prompt) - length :]


def _keep_start(answer: Answer, length: int) -> Answer:
    return answer if len(answer.ids) <= length else Answer(answer.ids[:length], answer.mask[:length])
