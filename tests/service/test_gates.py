"""Gates as rows: what two admins do at once."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import event

from service.clock import utc_now
from service.db.evaluation_tables import Evaluation
from service.db.session import Database
from service.errors import GateNotPassed
from service.evaluations import gates
from service.evaluations.gate import Rule
from service.evaluations.states import EvaluationState


async def test_of_two_first_puts_of_a_gate_at_once_both_succeed_and_the_later_one_counts(database: Database) -> None:
    async def put_after_it() -> float | None:
        async with database.transaction() as session:
            gate = await gates.put(session, "ada", "support", Rule(min_win_rate=0.6))
        return Rule.model_validate(gate.rule).min_win_rate

    async with database.transaction() as session:
        await gates.put(session, "ada", "support", Rule(min_win_rate=0.5))
        later = asyncio.create_task(put_after_it())
        await asyncio.sleep(0.2)  # until it waits for this one
    assert await later == 0.6
    async with database.reading() as session:
        stored = await gates.all_of(session, "ada")
    assert [(gate.model_name, gate.rule["min_win_rate"]) for gate in stored] == [("support", 0.6)]


async def test_only_evaluations_that_name_the_model_are_loaded_for_its_gate(database: Database) -> None:
    named = ["job:job-1", "job:job-12", "job:job-1@50", "job:job-1:base", "job:job-2"]
    async with database.transaction() as session:
        for number, model in enumerate(named):
            session.add(evaluation(f"eval-{number}", models=[{"name": "new", "model": model}]))
        session.add(evaluation("eval-5", models=[{"name": "other", "model": None}], judge="job:job-1"))
        await gates.put(session, "ada", "support", Rule(min_votes=1))
    loaded: list[str] = []

    def note(target: Evaluation, _context: object) -> None:
        loaded.append(target.id)

    event.listen(Evaluation, "load", note)
    try:
        with pytest.raises(GateNotPassed) as refused:
            async with database.transaction() as session:
                await gates.require_passed(session, "ada", "support", "job-1", None)
    finally:
        event.remove(Evaluation, "load", note)
    assert refused.value.extra["evaluation_id"] == "eval-0"
    assert loaded == ["eval-5", "eval-0"]


def evaluation(id: str, *, models: list[dict[str, Any]], judge: str | None = None) -> Evaluation:
    spec = {
        "models": [*models, {"name": "base", "model": "job:job-9"}],
        "judges": [{"type": "llm", "name": "judge", "model": judge}] if judge else [{"type": "human"}],
        "prompts": {"type": "inline", "items": [{"prompt": "Hello"}]},
    }
    return Evaluation(
        id=id,
        project_id="ada",
        body_sha256="0" * 64,
        spec=spec,
        state=EvaluationState.COMPLETED,
        num_items=0,
        created_at=utc_now(),
    )
