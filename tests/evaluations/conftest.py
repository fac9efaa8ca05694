"""A real database, models and judges that are real servers, and a controller that works through evaluations."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.controller.context import Controller, make_controller
from service.controller.evaluate import Evaluate
from service.db.evaluation_tables import Evaluation
from service.db.session import Database
from service.evaluations import service as evaluations
from service.evaluations.repository import EvaluationRepository
from service.evaluations.request import EvaluationRequest
from service.evaluations.states import MACHINE
from service.keys.roles import Role
from service.keys.service import Caller
from service.settings import EndpointKey, Settings
from tests.evaluations.openai_server import Answer, Asked, OpenAIServer, answering, sides

PROMPTS = [{"prompt": f"question {number}", "category": "even" if number % 2 == 0 else "odd"} for number in range(10)]


def model_answers(asked: Asked) -> Answer:
    """Of `good` the answer is better; a longer one is no better. The judge knows, and likes neither place."""
    if asked.body["model"] in ("good", "bad"):
        return Answer(f"a {asked.body['model']} answer to {asked.text}, seed {asked.body['seed']}")
    first, second = sides(asked)
    if ("good" in first) == ("good" in second):
        return Answer("Both are alike.\nVerdict: tie")
    return Answer(f"One is good.\n\nVerdict: {'A' if 'good' in first else 'B'}")


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with answering(model_answers) as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, database_url: str, server: OpenAIServer) -> Settings:
    return Settings(
        home=tmp_path,
        database_url=database_url,
        secret="a secret of this test",
        evaluation_origins=[server.origin],
        evaluation_keys={"ours": EndpointKey(origin=server.origin, key="sk-of-the-operator")},
        evaluation_max_tries=2,
        evaluation_concurrency=4,
    )


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.sqlalchemy_url)
    yield database
    await database.close()


@pytest.fixture
async def controller(settings: Settings, database: Database) -> AsyncIterator[Controller]:
    async with httpx.AsyncClient(base_url="http://127.0.0.1:9") as cluster:  # evaluations do not ask Ray
        yield make_controller(settings, database, cluster)


def body(server: OpenAIServer, **changed: Any) -> dict[str, Any]:
    """Ten prompts to a bad model, the baseline, and a good one, judged by a model."""
    endpoint = {"url": server.url, "secret": "ours"}
    return {
        "models": [{"name": name, "endpoint": endpoint | {"model": name}} for name in ("bad", "good")],
        "prompts": {"type": "inline", "items": PROMPTS},
        "judges": [{"type": "llm", "endpoint": endpoint | {"model": "judge"}}],
    } | changed


async def make(database: Database, settings: Settings, asked: dict[str, Any], *, project_id: str = "ada") -> Evaluation:
    request = EvaluationRequest.model_validate(asked)
    evaluation, _ = await evaluations.create(database, settings, project_id, request)
    return evaluation


async def work(controller: Controller, evaluation: Evaluation) -> Evaluation:
    """Reconcile until machines have nothing left to do."""
    async with Evaluate() as evaluate, asyncio.timeout(120):
        while True:
            await evaluate.reconcile(controller)
            found = await look(controller.database, evaluation)
            if found.state not in MACHINE:
                return found
            await asyncio.sleep(0.02)


async def look(database: Database, evaluation: Evaluation) -> Evaluation:
    async with database.reading() as session:
        return await EvaluationRepository(session).get(evaluation.id)


def voter(name: str) -> Caller:
    return Caller(project_id="ada", key_id=f"key-{name}", user_id=f"user-{name}", role=Role.MEMBER, name=name)
