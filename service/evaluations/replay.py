"""An answer asked for again, as it was asked for the first time."""

from dataclasses import dataclass

import httpx

from service.db.evaluation_tables import EvaluationAnswer, EvaluationItem
from service.db.session import Database
from service.deployments.uses import DeploymentUses
from service.errors import InvalidRequest, InvalidState, ServingUnavailable
from service.evaluations import targets
from service.evaluations.ask import Away, Pace, Unanswered, Unusable, ask
from service.evaluations.repository import EvaluationRepository
from service.evaluations.run import asked_of
from service.evaluations.service import request_of
from service.settings import Settings

_SAMPLING = ("max_tokens", "temperature", "top_p", "seed")


@dataclass(frozen=True)
class Replay:
    """first_difference: the first character at which the texts differ. changed: what is not as it was then."""

    stored: str
    now: str
    first_difference: int | None
    changed: list[str]


async def replay(
    database: Database,
    settings: Settings,
    uses: DeploymentUses,
    client: httpx.AsyncClient,
    project_id: str,
    evaluation_id: str,
    position: int,
    model: int,
) -> Replay:
    """The same prompt with the same sampling and seed to the same model. An engine that is deterministic gives the same
    text; one that batches by load may not, even at temperature 0.

    Raises NotFound, InvalidRequest for a place that there is not, InvalidState if there was no answer,
    ModelNotDeployed, and ServingUnavailable.
    """
    async with database.reading() as session:
        evaluation = await EvaluationRepository(session).get_in_project(evaluation_id, project_id)
        request = request_of(evaluation)
        if not 0 <= position < evaluation.num_items or not 0 <= model < len(request.models):
            raise InvalidRequest("The evaluation has no such prompt or model.", field="position")
        item = await session.get_one(EvaluationItem, (evaluation_id, position))
        answer = await session.get(EvaluationAnswer, (evaluation_id, position, model))
    if answer is None or answer.text is None:
        raise InvalidState("The model has given no answer to this prompt, or not yet: there is nothing to replay.")
    candidate = request.models[model]
    target = await targets.find(
        database, settings, uses, project_id, candidate, f"'{candidate.name}'", chat=bool(answer.request["chat"])
    )
    sampling = {name: answer.request[name] for name in _SAMPLING}
    once = settings.model_copy(update={"evaluation_max_tries": 1})
    try:
        reply = await ask(client, once, target, asked_of(target, item.prompt) | sampling, Pace())
    except (Unanswered, Away, Unusable) as error:
        raise ServingUnavailable(f"The answer could not be had again: {error}.") from error
    changed = []
    if target.url != answer.request["url"]:
        changed.append(f"the server was {answer.request['url']} and is {target.url}")
    if reply.engine != answer.engine:
        changed.append(f"the engine was {answer.engine} and is {reply.engine}")
    if reply.finish_reason != answer.finish_reason:
        changed.append(f"the answer ended with {answer.finish_reason} and ends with {reply.finish_reason}")
    return Replay(answer.text, reply.text, _first_difference(answer.text, reply.text), changed)


def _first_difference(one: str, other: str) -> int | None:
    if one == other:
        return None
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
