"""Votes and verdicts become preference pairs: a file that a job can be trained on."""

import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from service.db.evaluation_tables import EvaluationAnswer, EvaluationItem
from service.db.session import Database
from service.db.tables import File, Job
from service.errors import InvalidRequest, InvalidState
from service.evaluations.outcomes import Outcome, Pair, of_verdicts, of_votes
from service.evaluations.repository import EvaluationRepository
from service.evaluations.request import EvaluationRequest, HumanJudge, LlmJudge
from service.evaluations.service import request_of
from service.files import service as files
from service.files.repository import FileRepository
from service.jobs.clone import clone
from service.jobs.merge_patch import merge_patch
from service.settings import Settings


@dataclass(frozen=True)
class Export:
    """left_out: comparisons that make no pair, by reason. replayed: an earlier request with this key made the job."""

    file: File
    num_pairs: int
    left_out: dict[str, int]
    job: Job | None = None
    replayed: bool = False


async def export(
    database: Database,
    settings: Settings,
    project_id: str,
    evaluation_id: str,
    *,
    judges: Sequence[str] | None = None,
    min_share: float = 0.5,
    next_job: dict[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> Export:
    """Store the pairs as a file, in the format with `prompt`, `chosen` and `rejected`; the same pairs once more are the
    file that there is.

    judges: names; by default all who compare. Each pair of answers counts once: what the judges' mean outcome says, if
    the share that it gives the winner is more than a half and at least `min_share`.
    next_job: a merge patch on the specification of the evaluation's job, which is then submitted with the pairs as its
    training file. idempotency_key: of that job.
    Raises NotFound, InvalidRequest for a judge that there is not, InvalidState without a pair, QuotaExceeded, and for a
    next job what `clone` raises; the file is kept then.
    """
    async with database.reading() as session:
        repository = EvaluationRepository(session)
        evaluation = await repository.get_in_project(evaluation_id, project_id)
        request = request_of(evaluation)
        places = _places(request, judges)
        items = {item.position: item for item in await repository.items(evaluation_id)}
        answers = {(one.position, one.model): one for one in await repository.answers(evaluation_id)}
        votes = [vote for vote in await repository.votes(evaluation_id) if vote.judge in places]
        verdicts = [one for one in await repository.judged(evaluation_id) if one.judge in places]
    outcomes = [*of_votes(votes, "").outcomes]
    for place in places:
        of_judge = [one for one in verdicts if one.judge == place]
        outcomes += of_verdicts(of_judge, "", range(evaluation.num_items), complete=True).outcomes
    rows, left_out = make_rows(outcomes, items, answers, min_share)
    if not rows:
        raise InvalidState("No comparison has a winner by these judges: there is no pair to export.", left_out=left_out)
    if next_job is not None and evaluation.job_id is None:
        raise InvalidState("No model of the evaluation comes from a job whose specification the next one could take.")

    lines = [json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n" for row in rows]
    file = await _file(database, settings, project_id, f"{evaluation_id}-pairs.jsonl", lines)
    if next_job is None:
        return Export(file, len(rows), left_out)
    assert evaluation.job_id is not None
    data = {"train": file.id, "format": "auto", "scores": "ignore", "validation": None}
    patch = merge_patch({"data": data}, next_job)
    job, replayed = await clone(database, settings, project_id, evaluation.job_id, patch, idempotency_key)
    return Export(file, len(rows), left_out, job, replayed)


async def _file(database: Database, settings: Settings, project_id: str, name: str, lines: Sequence[bytes]) -> File:
    """The project's file of this name and these lines; a new one if there is none."""
    digest = hashlib.sha256(b"".join(lines)).hexdigest()
    async with database.reading() as session:
        there, _ = await FileRepository(session).page(project_id, limit=100, sha256=digest)
    for file in there:
        if file.filename == name:
            return file

    async def chunks() -> AsyncIterator[bytes]:
        for line in lines:
            yield line

    return await files.store(database, settings, project_id, name, chunks())


def make_rows(
    outcomes: Sequence[Outcome],
    items: dict[int, EvaluationItem],
    answers: dict[tuple[int, int], EvaluationAnswer],
    min_share: float,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The rows, in the order of the prompts, and what was left out by reason. All are conversations if any answer was
    given in one, since a file has one form. Pure."""
    shares: dict[tuple[int, Pair], list[float]] = {}
    for one in outcomes:
        shares.setdefault((one.position, one.pair), []).append(one.value)
    conversational = any(
        answers[position, model].request["chat"] or isinstance(items[position].prompt, list)
        for position, pair in shares
        for model in pair
    )
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    for (position, (model, baseline)), values in sorted(shares.items()):
        share = sum(values) / len(values)
        winner, loser = (model, baseline) if share > 0.5 else (baseline, model)
        chosen, rejected = (answers[position, one].text or "" for one in (winner, loser))
        if share == 0.5:
            left_out["tie"] += 1
        elif max(share, 1 - share) < min_share:
            left_out["undecided"] += 1
        elif not chosen.strip() or not rejected.strip():
            left_out["empty"] += 1
        elif chosen == rejected:
            left_out["equal"] += 1
        else:
            rows.append(_row(items[position].prompt, chosen, rejected, conversational=conversational))
    return rows, dict(left_out)


def _row(prompt: Any, chosen: str, rejected: str, *, conversational: bool) -> dict[str, Any]:
    if not conversational:
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return {
        "prompt": prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def _places(request: EvaluationRequest, names: Sequence[str] | None) -> set[int]:
    comparing = {
        judge.name: place for place, judge in enumerate(request.judges) if isinstance(judge, HumanJudge | LlmJudge)
    }
    for name in names or ():
        if name not in comparing:
            there = ", ".join(f"'{one}'" for one in comparing) or "none"
            raise InvalidRequest(
                f"The evaluation has no judge '{name[:100]}' that compares answers; there are: {there}.", field="judges"
            )
    return {comparing[name] for name in names} if names else set(comparing.values())
