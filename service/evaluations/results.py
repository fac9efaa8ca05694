"""The results of an evaluation, computed anew from its rows each time: they are never behind the votes.

It loads numpy: import it where results are asked for.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.evaluation_tables import Evaluation, EvaluationVote
from service.db.session import Database
from service.db.tables import Metric
from service.errors import DataReportMissing, NotFound
from service.evaluations import judge_prompt, statistics
from service.evaluations.figures import (
    ALPHA,
    CONFIDENCE,
    AgreementFigure,
    CategoryFigure,
    IntervalFigure,
    JudgeFigures,
    KappaFigure,
    LengthControlledFigure,
    MetricFigures,
    ModelFigures,
    PairFigures,
    PositionFigure,
    RatingFigure,
    Results,
    RewardFigures,
    SequentialFigure,
)
from service.evaluations.outcomes import (
    Judged,
    Outcome,
    Pair,
    Verdict,
    decided,
    drawn,
    majority,
    of_verdicts,
    of_votes,
    on_whole_prompts,
)
from service.evaluations.repository import EvaluationRepository, Said, Score
from service.evaluations.request import EvaluationRequest, HumanJudge, ImplicitReward, LlmJudge, MetricJudge
from service.evaluations.service import request_of
from service.evaluations.states import MACHINE, OPEN
from service.evaluations.statistics.methods import METHODS
from service.jobs.log import LogRepository
from service.jobs.service import data_report


@dataclass(frozen=True)
class Rows:
    """All that an evaluation counts, without what was said. categories: by the prompt's position. reward: of its job,
    the last measurement of held-out pairs, and of how many."""

    evaluation: Evaluation
    categories: Mapping[int, str | None]
    answers: Sequence[Said]
    verdicts: Sequence[Verdict]
    votes: Sequence[EvaluationVote]
    scores: Sequence[Score]
    reward: tuple[Metric, int] | None


async def results(database: Database, evaluation: Evaluation) -> Results:
    """Computed in a thread: thousands of votes take a moment."""
    async with database.reading() as session:
        rows = await read(session, evaluation)
    return await asyncio.to_thread(compute, rows)


async def read(session: AsyncSession, evaluation: Evaluation) -> Rows:
    repository = EvaluationRepository(session)
    return Rows(
        await repository.get(evaluation.id),
        await repository.categories(evaluation.id),
        await repository.said(evaluation.id),
        await repository.judged(evaluation.id),
        await repository.votes(evaluation.id, taken_back=True),
        await repository.measured(evaluation.id),
        await _reward(session, evaluation),
    )


async def _reward(session: AsyncSession, evaluation: Evaluation) -> tuple[Metric, int] | None:
    if not evaluation.job_id or not request_of(evaluation).places(ImplicitReward):
        return None
    metric = await LogRepository(session).newest_metric(evaluation.job_id, "held_out")
    try:
        report = await data_report(session, evaluation.project_id, evaluation.job_id)
    except (DataReportMissing, NotFound):  # the job may have been deleted since
        return None
    held_out = report.overlap.held_out
    return (metric, held_out) if metric is not None and held_out else None


def compute(rows: Rows) -> Results:
    """Pure."""
    request = request_of(rows.evaluation)
    judged = {place: _judged(rows, request, place) for place in _comparing(request)}
    return Results(
        evaluation_id=rows.evaluation.id,
        name=rows.evaluation.name,
        job_id=rows.evaluation.job_id,
        state=rows.evaluation.state,
        as_of=utc_now(),
        num_items=rows.evaluation.num_items,
        models=_models(rows, request),
        judges=[_judge(rows, request, place, found) for place, found in judged.items()],
        agreement=_agreement(list(judged.values())),
        kappas=_kappas(request, judged),
        rewards=_rewards(rows, request),
        metrics=_metrics(rows, request),
        methods=METHODS,
    )


def _comparing(request: EvaluationRequest) -> list[int]:
    return [place for place, judge in enumerate(request.judges) if isinstance(judge, HumanJudge | LlmJudge)]


def _judged(rows: Rows, request: EvaluationRequest, place: int) -> Judged:
    name = request.judges[place].name
    if isinstance(request.judges[place], HumanJudge):
        votes = [vote for vote in rows.votes if vote.judge == place]
        if rows.evaluation.state in OPEN:
            votes = on_whole_prompts(votes, len(request.pairs))
        return of_votes(votes, name)
    complete = rows.evaluation.state not in MACHINE
    order = drawn(rows.evaluation.id, rows.evaluation.num_items)
    return of_verdicts([one for one in rows.verdicts if one.judge == place], name, order, complete=complete)


def _judge(rows: Rows, request: EvaluationRequest, place: int, judged: Judged) -> JudgeFigures:
    judge = request.judges[place]
    lengths = {(one.position, one.model): one.characters for one in rows.answers if one.characters is not None}
    comparisons = {one.comparison: number for number, one in enumerate(judged.shown)}
    bias = statistics.position_bias(
        [one.first_won for one in judged.shown], [comparisons[one.comparison] for one in judged.shown], CONFIDENCE
    )
    ranking = None
    if len(request.models) > 2 and judged.shown:
        ranking = statistics.bradley_terry(
            [model.name for model in request.models],
            [one.pair[0] for one in judged.shown],
            [one.pair[1] for one in judged.shown],
            [one.value for one in judged.shown],
            [one.position for one in judged.shown],
            CONFIDENCE,
        )
    return JudgeFigures(
        judge=judge.name,
        type="human" if isinstance(judge, HumanJudge) else "llm",
        prompt=judge_prompt.version(judge.prompt) if isinstance(judge, LlmJudge) else None,
        num=judged.num,
        failed=judged.failed,
        voters=judged.voters,
        pairs=[_pair(rows, request, pair, judged, lengths) for pair in request.pairs],
        position=PositionFigure.model_validate(bias) if bias else None,
        ranking=[RatingFigure.model_validate(one) for one in ranking] if ranking else None,
    )


def _pair(
    rows: Rows, request: EvaluationRequest, pair: Pair, judged: Judged, lengths: Mapping[tuple[int, int], int]
) -> PairFigures:
    """lengths: of the answers, by position and model."""
    outcomes = [one for one in judged.outcomes if one.pair == pair]
    model, baseline = pair
    controlled = statistics.length_controlled(
        [one.value for one in outcomes],
        [lengths[one.position, model] - lengths[one.position, baseline] for one in outcomes],
        [one.position for one in outcomes],
        CONFIDENCE,
    )
    test = statistics.sequential(judged.sequence.get(pair, ()), ALPHA)
    better = {"first": "better", "second": "worse", None: None}[test.decision]
    counts = [decided(one.value) for one in outcomes]
    return PairFigures(
        model=request.models[model].name,
        baseline=request.models[baseline].name,
        wins=counts.count(1.0),
        losses=counts.count(0.0),
        ties=counts.count(0.5),
        win_rate=_win_rate(outcomes),
        length_controlled=LengthControlledFigure.model_validate(controlled) if controlled else None,
        sequential=SequentialFigure.model_validate({**vars(test), "decision": better}),
        categories=_categories(rows, outcomes),
    )


def _categories(rows: Rows, outcomes: Sequence[Outcome]) -> list[CategoryFigure]:
    """By name, those that have a verdict; none if no prompt has a category."""
    of_item = rows.categories
    found = sorted({of_item[one.position] or "" for one in outcomes} - {""})
    names: list[str | None] = [*found, None] if found else []
    figures = []
    for category in names:
        rate = _win_rate([one for one in outcomes if (of_item[one.position] or None) == category])
        if rate is not None:
            figures.append(CategoryFigure(category=category, win_rate=rate))
    return figures


def _win_rate(outcomes: Sequence[Outcome]) -> IntervalFigure | None:
    found = statistics.win_rate([one.value for one in outcomes], [one.position for one in outcomes], CONFIDENCE)
    return IntervalFigure.model_validate(found) if found else None


def _agreement(judged: Sequence[Judged]) -> AgreementFigure | None:
    raters = [ratings for one in judged for ratings in one.ratings.values() if ratings]
    if len(raters) < 2:
        return None
    places = sorted({place for ratings in raters for place in ratings})
    found = statistics.krippendorff_alpha(
        [[ratings.get(place, np.nan) for place in places] for ratings in raters], confidence=CONFIDENCE
    )
    return AgreementFigure.model_validate({**vars(found), "raters": len(raters)}) if found else None


def _kappas(request: EvaluationRequest, judged: dict[int, Judged]) -> list[KappaFigure]:
    figures = []
    opinions = {request.judges[place].name: majority(one.outcomes) for place, one in judged.items()}
    for (first, one), (second, other) in combinations(opinions.items(), 2):
        both = sorted(one.keys() & other.keys())
        kappa = statistics.cohen_kappa([one[at] for at in both], [other[at] for at in both])
        if kappa is not None:
            figures.append(KappaFigure(first=first, second=second, kappa=kappa, num=len(both)))
    return figures


def _rewards(rows: Rows, request: EvaluationRequest) -> list[RewardFigures]:
    if rows.reward is None:
        return []
    metric, num = rows.reward
    accuracy = metric.values.get("rewards/accuracies")
    if accuracy is None:  # a loss without rewards of pairs
        return []
    wins = round(accuracy * num)
    found = statistics.win_rate([1.0] * wins + [0.0] * (num - wins), range(num), CONFIDENCE)
    assert found is not None
    return [
        RewardFigures(
            judge=request.judges[place].name,
            job_id=metric.job_id,
            step=metric.step,
            accuracy=IntervalFigure.model_validate(found),
            margin=metric.values.get("rewards/margins"),
        )
        for place in request.places(ImplicitReward)
    ]


def _metrics(rows: Rows, request: EvaluationRequest) -> list[MetricFigures]:
    figures = []
    for place in request.places(MetricJudge):
        judge = request.judges[place]
        assert isinstance(judge, MetricJudge)
        for model, candidate in enumerate(request.models):
            of_model = [one for one in rows.scores if (one.judge, one.model) == (place, model)]
            values = [one.value for one in of_model if one.value is not None]
            interval = statistics.mean_interval(values, CONFIDENCE)
            figures.append(
                MetricFigures(
                    judge=judge.name,
                    metric=judge.metric,
                    model=candidate.name,
                    mean=sum(values) / len(values) if values else None,
                    low=interval[1] if interval else None,
                    high=interval[2] if interval else None,
                    num=len(values),
                    failed=len(of_model) - len(values),
                )
            )
    return figures


def _models(rows: Rows, request: EvaluationRequest) -> list[ModelFigures]:
    figures = []
    for place, candidate in enumerate(request.models):
        answers = [one for one in rows.answers if one.model == place]
        texts = [one.characters for one in answers if one.characters is not None]
        tokens = [one.completion_tokens for one in answers if one.completion_tokens is not None]
        figures.append(
            ModelFigures(
                model=candidate.name,
                answered=len(texts),
                failed=len(answers) - len(texts),
                cut_off=sum(one.finish_reason == "length" for one in answers),
                mean_tokens=sum(tokens) / len(tokens) if tokens else None,
                mean_characters=sum(texts) / len(texts) if texts else None,
            )
        )
    return figures
