"""What the controller does for one evaluation: has models answer, judges compare and metrics measure.

Every answer is a row as soon as it is there, and only what has no row is asked: after a restart nothing that was
answered is asked again. What was under way at a crash is; nothing can be known of it.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any, TypeVar

import httpx
from sqlalchemy.exc import IntegrityError

from service.clock import utc_now
from service.db.evaluation_tables import (
    Evaluation,
    EvaluationAnswer,
    EvaluationItem,
    EvaluationScore,
    EvaluationVerdict,
)
from service.db.session import Database
from service.db.tables import Base
from service.deployments.uses import DeploymentUses
from service.evaluations import judge_prompt, metrics, targets
from service.evaluations import service as evaluations
from service.evaluations.ask import Pace, Unanswered, ask
from service.evaluations.outcomes import drawn
from service.evaluations.repository import EvaluationRepository
from service.evaluations.request import Asked, EvaluationRequest, LlmJudge, MetricJudge
from service.evaluations.targets import Target
from service.settings import Settings

T = TypeVar("T")
_MAX_ERROR = 1000


class Run:
    """One evaluation's work, from where its rows say that it is."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        uses: DeploymentUses,
        client: httpx.AsyncClient,
        evaluation: Evaluation,
    ) -> None:
        self._database = database
        self._uses = uses
        self._settings = settings
        self._client = client
        self._evaluation = evaluation
        self._id = evaluation.id
        self._project_id = evaluation.project_id
        self._request: EvaluationRequest = evaluations.request_of(evaluation)
        self._paces: defaultdict[str, Pace] = defaultdict(
            lambda: Pace(slots=asyncio.Semaphore(settings.evaluation_concurrency))
        )

    async def run(self) -> None:
        """Until everything that can be had is a row.

        Raises what `targets.find` raises, Unusable for a server that answers nothing, and Away for one that answers
        nothing now: what has no row is to be asked later.
        """
        async with self._database.reading() as session:
            items = {item.position: item for item in await EvaluationRepository(session).items(self._id)}
        await self._answer(items)
        async with self._database.reading() as session:
            answers = await EvaluationRepository(session).answers(self._id)
        texts = {(one.position, one.model): one.text for one in answers if one.text is not None}
        await self._judge(items, texts)
        await self._measure(items, texts)

    async def _answer(self, items: dict[int, EvaluationItem]) -> None:
        async with self._database.reading() as session:
            done = await EvaluationRepository(session).answered(self._id)
        places = range(len(self._request.models))
        missing = [(at, model) for at in items for model in places if (at, model) not in done]
        found = {model: await self._target(self._request.models[model]) for model in {model for _, model in missing}}

        async def one(work: tuple[int, int]) -> None:
            position, model = work
            await self._store(await self._answer_one(items[position], model, found[model]))

        await self._each(missing, one, list(found.values()))

    async def _answer_one(self, item: EvaluationItem, model: int, target: Target) -> EvaluationAnswer:
        sampling = self._request.sampling.of_item(item.position)
        answer = EvaluationAnswer(
            evaluation_id=self._id,
            position=item.position,
            model=model,
            request={"url": target.url, "chat": target.chat, "model": target.model, **sampling},
            created_at=utc_now(),
        )
        try:
            question = asked_of(target, item.prompt)
            reply = await ask(self._client, self._settings, target, question | sampling, self._paces[target.base_url])
        except Unanswered as error:
            answer.error = str(error)[:_MAX_ERROR]
            return answer
        answer.text, answer.finish_reason, answer.engine = reply.text, reply.finish_reason, reply.engine
        answer.prompt_tokens, answer.completion_tokens = reply.prompt_tokens, reply.completion_tokens
        return answer

    async def _judge(self, items: dict[int, EvaluationItem], texts: dict[tuple[int, int], str]) -> None:
        places = self._request.places(LlmJudge)
        if not places:
            return
        async with self._database.reading() as session:
            verdicts = await EvaluationRepository(session).verdicts(self._id)
        done = {(one.judge, one.position, one.model, one.baseline, one.model_first) for one in verdicts}
        wanted = [
            (judge, position, model, baseline, model_first)
            for judge in places
            for position in drawn(self._id, len(items))
            for model, baseline in self._request.pairs
            if (position, model) in texts and (position, baseline) in texts
            for model_first in (True, False)
        ]
        missing = [one for one in wanted if one not in done]
        found = {place: await self._target(self._llm(place)) for place in {one[0] for one in missing}}

        async def one(work: tuple[int, int, int, int, bool]) -> None:
            judge, position, model, baseline, model_first = work
            verdict = EvaluationVerdict(
                evaluation_id=self._id,
                judge=judge,
                position=position,
                model=model,
                baseline=baseline,
                model_first=model_first,
                created_at=utc_now(),
            )
            sides = [texts[position, model], texts[position, baseline]]
            await self._ask_judge(verdict, found[judge], items[position], sides if model_first else sides[::-1])
            await self._store(verdict)

        await self._each(missing, one, list(found.values()))

    async def _ask_judge(
        self, verdict: EvaluationVerdict, target: Target, item: EvaluationItem, sides: list[str]
    ) -> None:
        judge = self._llm(verdict.judge)
        filled = judge_prompt.fill_in(judge.prompt, judge_prompt.as_text(item.prompt), *sides)
        body = asked_of(target, filled) | {"max_tokens": judge.max_tokens, "temperature": judge.temperature, "seed": 0}
        try:
            reply = await ask(self._client, self._settings, target, body, self._paces[target.base_url])
        except Unanswered as error:
            verdict.failure = str(error)[:_MAX_ERROR]
            return
        verdict.reply = reply.text
        for_first = judge_prompt.verdict(reply.text)
        if for_first is None:
            verdict.failure = "The reply's last line is no verdict."
        else:
            verdict.outcome = for_first if verdict.model_first else 1 - for_first

    async def _measure(self, items: dict[int, EvaluationItem], texts: dict[tuple[int, int], str]) -> None:
        async with self._database.reading() as session:
            scores = await EvaluationRepository(session).scores(self._id)
        done = {(one.judge, one.position, one.model) for one in scores}
        places = self._request.places(MetricJudge)
        missing = [(place, *at) for place in places for at in texts if (place, *at) not in done]

        async def one(work: tuple[int, int, int]) -> None:
            place, position, model = work
            judge = self._request.judges[place]
            assert isinstance(judge, MetricJudge)
            score = EvaluationScore(
                evaluation_id=self._id, judge=place, position=position, model=model, created_at=utc_now()
            )
            try:
                score.value = await asyncio.to_thread(
                    metrics.measure, judge.metric, items[position].prompt, texts[position, model]
                )
            except metrics.MetricFailed as error:
                score.failure = str(error)
            await self._store(score)

        await self._each(missing, one, [])

    async def _target(self, asked: Asked) -> Target:
        who = getattr(asked, "name", None) or "the judge"
        chat = None if isinstance(asked, LlmJudge) else self._request.chat
        # it comes again by itself, and need not wait for one that sleeps
        impatient = self._settings.model_copy(update={"wake_wait_s": 0})
        return await targets.find(self._database, impatient, self._uses, self._project_id, asked, f"'{who}'", chat=chat)

    def _llm(self, place: int) -> LlmJudge:
        judge = self._request.judges[place]
        assert isinstance(judge, LlmJudge)
        return judge

    async def _each(self, work: Iterable[T], do: Callable[[T], Awaitable[None]], asked: Sequence[Target]) -> None:
        """All of it, as much at once as the servers together may be asked."""
        waiting = iter(work)
        num_servers = len({target.base_url for target in asked})

        async def worker() -> None:
            for one in waiting:
                await do(one)

        try:
            async with self._in_use(asked), asyncio.TaskGroup() as group:
                for _ in range(max(num_servers, 1) * self._settings.evaluation_concurrency):
                    group.create_task(worker())
        except BaseExceptionGroup as error:
            raise error.exceptions[0] from error  # what went wrong first; the others were stopped for it

    @asynccontextmanager
    async def _in_use(self, asked: Sequence[Target]) -> AsyncIterator[None]:
        with ExitStack() as uses:
            for target in asked:
                if target.deployment_id is not None:
                    uses.enter_context(self._uses.during(target.deployment_id))
            yield

    async def _store(self, row: Base) -> None:
        try:
            async with self._database.transaction() as session:
                session.add(row)
                if self._evaluation.error is not None:  # it has waited, and need not any more
                    await evaluations.wait(session, self._evaluation, None)
        except IntegrityError:
            async with self._database.reading() as session:  # deleted meanwhile, or there already
                await EvaluationRepository(session).get(self._id)


def asked_of(target: Target, question: Any) -> dict[str, Any]:
    """The part of a request that holds the prompt. Raises Unanswered for messages to a model that takes none."""
    if target.chat:
        return {"messages": question if isinstance(question, list) else [{"role": "user", "content": question}]}
    if isinstance(question, list):
        raise Unanswered(f"{target.who} has no chat template, and the prompt is a conversation")
    return {"prompt": question}
