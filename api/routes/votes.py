"""Blind votes on an evaluation's answers."""

from fastapi import APIRouter
from pydantic import Field

from api.deps import CallerDep, DatabaseDep, ProjectDep
from api.evaluation_views import Deal, DealView, VoteList, VoteView
from api.problems import problems
from service.errors import InvalidRequest, InvalidState, NotFound
from service.evaluations import votes
from service.evaluations.repository import EvaluationRepository
from service.evaluations.service import request_of
from service.evaluations.votes import Choice
from service.spec.base import SpecModel

router = APIRouter(prefix="/evaluations/{evaluation_id}", tags=["evaluations"])


class DealRequest(SpecModel):
    judge: str | None = Field(None, max_length=100, description="Name of a human judge; by default the first one.")


class VoteRequest(SpecModel):
    vote_id: str = Field(max_length=100, description="Of the pair as it was dealt to you.")
    choice: Choice


@router.post("/deals", responses=problems(NotFound, InvalidRequest, InvalidState))
async def deal(
    evaluation_id: str,
    _project_id: ProjectDep,
    caller: CallerDep,
    database: DatabaseDep,
    request: DealRequest | None = None,
) -> Deal:
    """The next pair for you to vote on, its sides shuffled; the same one again until you vote on it."""
    dealt = await votes.deal(database, caller, evaluation_id, request.judge if request else None)
    return Deal(deal=DealView.of(dealt) if dealt else None)


@router.post("/votes", responses=problems(NotFound, InvalidRequest, InvalidState))
async def vote(
    evaluation_id: str, request: VoteRequest, _project_id: ProjectDep, caller: CallerDep, database: DatabaseDep
) -> VoteView:
    """Vote on a pair that was dealt to you; a later choice replaces an earlier one."""
    async with database.transaction() as session:
        made = await votes.cast(session, caller, evaluation_id, request.vote_id, request.choice)
        evaluation = await EvaluationRepository(session).get(evaluation_id)
        return VoteView.of(made, request_of(evaluation), revealed=False)


@router.get("/votes", responses=problems(NotFound))
async def list_votes(evaluation_id: str, project_id: ProjectDep, caller: CallerDep, database: DatabaseDep) -> VoteList:
    """Your own votes, in the order in which you cast them; one that waits for you comes last or first."""
    async with database.reading() as session:
        repository = EvaluationRepository(session)
        evaluation = await repository.get_in_project(evaluation_id, project_id)
        found = await repository.votes(evaluation_id, voter=votes.voter_of(caller))
    request = request_of(evaluation)
    shown = [VoteView.of(one, request, revealed=evaluation.state.terminal) for one in found]
    return VoteList(data=shown)


@router.delete("/votes/{vote_id}", responses=problems(NotFound, InvalidState))
async def undo_vote(
    evaluation_id: str, vote_id: str, _project_id: ProjectDep, caller: CallerDep, database: DatabaseDep
) -> VoteView:
    """Take a vote of yours back: its pair is dealt to you again."""
    async with database.transaction() as session:
        undone = await votes.undo(session, caller, evaluation_id, vote_id)
        evaluation = await EvaluationRepository(session).get(evaluation_id)
        return VoteView.of(undone, request_of(evaluation), revealed=False)
