"""People's votes: pairs are dealt blind, one vote for each voter and pair, and a vote can be taken back.

Which side a model is shown on is drawn when the pair is dealt and kept in the row, so that neither a page nor a voter
learns it, and a vote means the same whichever replica takes it. What a voter said first stays in the row when they
change it: the sequential test goes by that, since who changes a vote may have seen the results.
"""

import random
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.clock import utc_now
from service.db.evaluation_tables import Evaluation, EvaluationItem, EvaluationVote
from service.db.session import Database
from service.errors import InvalidRequest, InvalidState, NotFound
from service.evaluations.repository import EvaluationRepository
from service.evaluations.request import EvaluationRequest, HumanJudge
from service.evaluations.service import request_of
from service.evaluations.states import OPEN
from service.ids import is_id, new_id
from service.keys.service import Caller

_TRIES = 3


class Choice(StrEnum):
    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    BOTH_BAD = "both_bad"  # a tie, and neither answer will do
    SKIP = "skip"  # says nothing, and the pair is not dealt to this voter again

    def outcome(self, *, model_left: bool) -> float | None:
        """Of the model whose side is told: 1 won, 0 lost, 0.5 a tie; None if nothing was said."""
        match self:
            case Choice.TIE | Choice.BOTH_BAD:
                return 0.5
            case Choice.SKIP:
                return None
            case _:
                return float((self is Choice.LEFT) == model_left)


@dataclass(frozen=True)
class Dealt:
    """A pair as its voter sees it. remaining: pairs that this voter could vote on yet, this one among them."""

    vote: EvaluationVote
    item: EvaluationItem
    left: str
    right: str
    remaining: int


def voter_of(caller: Caller) -> str:
    return caller.user_id or caller.key_id


async def deal(database: Database, caller: Caller, evaluation_id: str, judge: str | None = None) -> Dealt | None:
    """A pair for the caller to vote on: the one that was dealt to them last, until they vote; then one of those with
    the fewest votes, drawn by chance. None when there is none left for them, or not yet.

    judge: name of a human judge; by default the first one. Raises NotFound, InvalidRequest, and InvalidState unless the
    evaluation takes votes.
    """
    voter = voter_of(caller)
    for tried in range(_TRIES):
        try:
            async with database.transaction() as session:
                return await _deal(session, caller.project_id, evaluation_id, voter, judge)
        except IntegrityError:  # the same voter in another window was dealt this pair at this moment
            if tried == _TRIES - 1:
                raise
    return None


async def cast(
    session: AsyncSession, caller: Caller, evaluation_id: str, vote_id: str, choice: Choice
) -> EvaluationVote:
    """Vote on a pair that was dealt to the caller; a later choice replaces an earlier one.

    Raises NotFound, also for somebody else's vote, and InvalidState unless the evaluation takes votes.
    """
    evaluation, vote = await _of_caller(session, caller, evaluation_id, vote_id)
    _require_open(evaluation)
    vote.outcome, vote.voted_at = choice.outcome(model_left=vote.model_left), utc_now()
    vote.both_bad = choice is Choice.BOTH_BAD
    if vote.first_voted_at is None and vote.outcome is not None:
        vote.first_outcome, vote.first_voted_at = vote.outcome, vote.voted_at
    await audit.record(session, vote.id)
    return vote


async def undo(session: AsyncSession, caller: Caller, evaluation_id: str, vote_id: str) -> EvaluationVote:
    """Take a vote back: the pair is the caller's to vote on again. Raises as `cast` does."""
    evaluation, vote = await _of_caller(session, caller, evaluation_id, vote_id)
    _require_open(evaluation)
    vote.outcome = vote.voted_at = None
    vote.both_bad = False
    vote.dealt_at = utc_now()  # it comes next
    await audit.record(session, vote.id)
    return vote


def choice_of(vote: EvaluationVote) -> Choice | None:
    """What the voter chose; None if they have not voted."""
    if vote.voted_at is None:
        return None
    if vote.outcome is None:
        return Choice.SKIP
    if vote.outcome == 0.5:
        return Choice.BOTH_BAD if vote.both_bad else Choice.TIE
    return Choice.LEFT if (vote.outcome == 1) == vote.model_left else Choice.RIGHT


async def _deal(
    session: AsyncSession, project_id: str, evaluation_id: str, voter: str, judge: str | None
) -> Dealt | None:
    repository = EvaluationRepository(session)
    evaluation = await repository.get_in_project(evaluation_id, project_id)
    _require_open(evaluation)
    request = request_of(evaluation)
    place = _human(request, judge)
    own = {_pair(vote): vote for vote in await repository.votes(evaluation_id, voter=voter) if vote.judge == place}
    answered = await repository.answered(evaluation_id)
    pairs = [
        (position, model, baseline)
        for position in range(evaluation.num_items)
        for model, baseline in request.pairs
        if answered.get((position, model)) and answered.get((position, baseline))
    ]
    left = [pair for pair in pairs if pair not in own or own[pair].voted_at is None]
    if not left:
        return None
    waiting = [own[pair] for pair in left if pair in own]
    if waiting:
        vote = max(waiting, key=lambda one: one.dealt_at)
    else:
        counts = Counter(_pair(one) for one in await repository.votes(evaluation_id) if one.judge == place)
        position, model, baseline = _draw(left, counts)
        vote = EvaluationVote(
            id=new_id("vote"),
            evaluation_id=evaluation_id,
            judge=place,
            voter=voter,
            position=position,
            model=model,
            baseline=baseline,
            model_left=bool(secrets.randbits(1)),
            both_bad=False,
            dealt_at=utc_now(),
        )
        session.add(vote)
        await session.flush()
    return await _shown(session, vote, len(left))


def _draw(pairs: list[tuple[int, int, int]], counts: Mapping[tuple[int, int, int], int]) -> tuple[int, int, int]:
    fewest = min(counts.get(pair, 0) for pair in pairs)
    return random.choice([pair for pair in pairs if counts.get(pair, 0) == fewest])  # noqa: S311 - no secret


async def _shown(session: AsyncSession, vote: EvaluationVote, remaining: int) -> Dealt:
    item = await session.get_one(EvaluationItem, (vote.evaluation_id, vote.position))
    answers = await EvaluationRepository(session).answers(vote.evaluation_id, [vote.position])
    texts = {answer.model: answer.text or "" for answer in answers}
    sides = texts[vote.model], texts[vote.baseline]
    left, right = sides if vote.model_left else sides[::-1]
    return Dealt(vote, item, left, right, remaining)


async def _of_caller(
    session: AsyncSession, caller: Caller, evaluation_id: str, vote_id: str
) -> tuple[Evaluation, EvaluationVote]:
    evaluation = await EvaluationRepository(session).get_in_project(evaluation_id, caller.project_id, lock=True)
    vote = await session.get(EvaluationVote, vote_id) if is_id("vote", vote_id) else None
    if vote is None or vote.evaluation_id != evaluation.id or vote.voter != voter_of(caller):
        raise NotFound(
            "The evaluation has no such vote of yours. GET /v1/evaluations/{evaluation_id}/votes lists them."
        )
    return evaluation, vote


def _require_open(evaluation: Evaluation) -> None:
    if evaluation.state not in OPEN:
        raise InvalidState(f"The evaluation is {evaluation.state}: it takes no votes.", state=evaluation.state)


def _human(request: EvaluationRequest, name: str | None) -> int:
    for place in request.places(HumanJudge):
        if name in (None, request.judges[place].name):
            return place
    what = "has no human judge" if name is None else f"has no human judge '{name}'"
    raise InvalidRequest(f"The evaluation {what}: nobody is asked to vote.", field="judge")


def _pair(vote: EvaluationVote) -> tuple[int, int, int]:
    return vote.position, vote.model, vote.baseline
