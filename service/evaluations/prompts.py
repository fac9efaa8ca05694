"""The prompts of an evaluation: read once, when it is made, and kept with it."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from service.db.session import Database
from service.errors import DatasetInvalid, InvalidRequest
from service.evaluations.request import MAX_TEXT, FilePrompts, HeldOut, Inline, Prompts
from service.files import contents
from service.files.repository import FileRepository
from service.jobs.repository import JobRepository
from service.settings import Settings
from service.spec import Storage
from service.spec.rows import ReaderMissing, RowError, RowFormat, RowProblem, ScoreUse, parse_value
from service.spec.rows.files import records
from service.spec.rows.formats import detect
from service.text import storable

Question = str | list[dict[str, Any]]

_SHOWN = 20


@dataclass(frozen=True)
class Item:
    prompt: Question
    category: str | None = None


async def read(database: Database, settings: Settings, project_id: str, prompts: Prompts) -> list[Item]:
    """One or more, as they were asked for. Raises NotFound, InvalidRequest, DatasetInvalid, Unavailable."""
    match prompts:
        case Inline(items=items):
            return [Item(one.question, one.category) for one in items]
        case FilePrompts(file_id=file_id, max=most):
            async with database.reading() as session:
                file = await FileRepository(session).get_in_project(file_id, project_id)
            try:
                path = await contents.local_path(settings, file.id)
                return await asyncio.to_thread(from_file, path, most)
            except FileNotFoundError as error:
                raise InvalidRequest("The file has just been deleted.", field="prompts.file_id") from error
        case HeldOut(job_id=job_id, max=most):
            async with database.reading() as session:
                job = await JobRepository(session).get_in_project(job_id, project_id)
            path = Storage(settings.storage_root).held_out(job.id)
            try:
                return await asyncio.to_thread(_held_out, path, most)
            except FileNotFoundError as error:
                raise InvalidRequest(
                    f"{job.id} has no held-out rows: it kept none out, has not trained to its end, or retention has "
                    "removed its working files. Give the prompts as a file.",
                    field="prompts.job_id",
                ) from error


def from_file(path: Path, most: int) -> list[Item]:
    """Raises DatasetInvalid, naming the rows at fault, if any of those that are read has no prompt."""
    items: list[Item] = []
    bad: list[dict[str, Any]] = []
    try:
        for number, found in enumerate(islice(records(path), most), 1):
            if isinstance(found, RowProblem):
                bad.append({"row": found.row, "code": found.code, "message": found.message, "field": found.field})
                continue
            try:
                items.append(_item(found.value, number))
            except RowError as error:
                bad.append({"row": found.number, "code": error.code, "message": str(error), "field": error.field})
    except ReaderMissing as error:
        raise DatasetInvalid(f"{error}", field="prompts.file_id") from error
    _require_none(bad, "the file's", "prompts.file_id")
    if not items:
        raise DatasetInvalid("The file has no rows.", field="prompts.file_id")
    return items


def _require_none(bad: list[dict[str, Any]], whose: str, field: str) -> None:
    if not bad:
        return
    first = f"row {bad[0]['row']}: {bad[0]['message']}"
    raise DatasetInvalid(
        f"{len(bad)} of {whose} rows have no usable prompt, the first being {first}.",
        field=field,
        rows=bad[:_SHOWN],
        bad_rows=len(bad),
    )


def _item(value: Any, number: int) -> Item:
    if not isinstance(value, dict):
        raise RowError("row_not_object", "a row must be a JSON object")
    category = value.get("category")
    if category is not None and not (isinstance(category, str) and len(category) <= 200):
        raise RowError("category_invalid", "the category must be a text of at most 200 characters", "category")
    return Item(_checked(_question(value, number)), None if category is None else str(storable(category)))


def _question(value: dict[str, Any], number: int) -> Any:
    if "prompt" in value:
        return value["prompt"]
    format = detect(value)
    if format is not None and format is not RowFormat.MESSAGES:
        return parse_value(value, number, format, ScoreUse.IGNORE).prompt
    messages = value.get("messages")
    while isinstance(messages, list) and messages and _is_message(messages[-1]) and messages[-1]["role"] == "assistant":
        messages = messages[:-1]  # which the models are to write
    return messages


def _checked(question: Any) -> Question:
    """As it may be stored and sent. Raises RowError."""
    if isinstance(question, str):
        if not question.strip() or len(question) > MAX_TEXT:
            raise RowError("prompt_invalid", f"the prompt is empty or has more than {MAX_TEXT} characters", "prompt")
        return str(storable(question))
    if not isinstance(question, list) or not question or not all(_is_message(one) for one in question):
        raise RowError("prompt_missing", "there is neither a text `prompt` nor a list of `messages`", "prompt")
    if len(json.dumps(question)) > MAX_TEXT:
        raise RowError("prompt_invalid", f"the messages have more than {MAX_TEXT} characters", "prompt")
    return [{"role": str(one["role"]), "content": str(storable(one["content"]))} for one in question]


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("content"), str) and isinstance(value.get("role"), str)


def _held_out(path: Path, most: int) -> list[Item]:
    def lines() -> Iterator[str]:
        with path.open(encoding="utf-8") as file:
            yield from islice(file, most)

    items: list[Item] = []
    bad: list[dict[str, Any]] = []
    for number, line in enumerate(lines(), 1):  # the job may have trained on what no server would take
        try:
            items.append(Item(_checked(json.loads(line)["prompt"])))
        except RowError as error:
            bad.append({"row": number, "code": error.code, "message": str(error), "field": error.field})
    _require_none(bad, "the job's held-out", "prompts.job_id")
    if not items:
        raise FileNotFoundError(path)
    return items
