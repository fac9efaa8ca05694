import asyncio

import pytest

from service.controller.context import Controller
from service.db.evaluation_tables import Evaluation
from service.db.session import Database
from service.errors import InvalidRequest, InvalidState, NotFound
from service.evaluations import service as evaluations
from service.evaluations import votes
from service.evaluations.repository import EvaluationRepository
from service.evaluations.results import results
from service.evaluations.votes import Choice, Dealt
from service.keys.service import Caller
from service.settings import Settings
from tests.evaluations.conftest import body, make, voter, work
from tests.evaluations.openai_server import OpenAIServer

ADA, BOB = voter("ada"), voter("bob")


@pytest.fixture
async def voting(database: Database, settings: Settings, controller: Controller, server: OpenAIServer) -> Evaluation:
    return await work(controller, await make(database, settings, body(server, judges=[{"type": "human"}])))


async def dealt(database: Database, evaluation: Evaluation, caller: Caller = ADA) -> Dealt:
    found = await votes.deal(database, caller, evaluation.id)
    assert found is not None
    return found


async def choose(
    database: Database, evaluation: Evaluation, vote_id: str, choice: Choice, caller: Caller = ADA
) -> None:
    async with database.transaction() as session:
        await votes.cast(session, caller, evaluation.id, vote_id, choice)


async def cast_votes(database: Database, evaluation: Evaluation) -> dict[str, float | None]:
    async with database.reading() as session:
        return {one.id: one.outcome for one in await EvaluationRepository(session).votes(evaluation.id)}


async def test_a_voter_who_prefers_the_good_model_makes_it_win_on_either_side(
    database: Database, voting: Evaluation
) -> None:
    on_the_left = 0
    for caller in (ADA, BOB, voter("eve")):
        for remaining in range(10, 0, -1):
            pair = await dealt(database, voting, caller)
            assert pair.remaining == remaining
            good_left = "good" in pair.left
            assert good_left != ("good" in pair.right)
            on_the_left += good_left
            await choose(database, voting, pair.vote.id, Choice.LEFT if good_left else Choice.RIGHT, caller)
        assert await votes.deal(database, caller, voting.id) is None
    assert 0 < on_the_left < 30  # by chance
    assert list((await cast_votes(database, voting)).values()) == [1.0] * 30


async def test_a_pair_stays_dealt_until_it_is_voted_on_and_two_voters_are_dealt_apart(
    database: Database, voting: Evaluation
) -> None:
    first = await dealt(database, voting)
    again, others = await dealt(database, voting), await dealt(database, voting, BOB)
    assert (again.vote.id, again.left, again.right) == (first.vote.id, first.left, first.right)
    assert others.vote.id != first.vote.id
    with pytest.raises(NotFound):
        await choose(database, voting, first.vote.id, Choice.TIE, BOB)


async def test_one_voter_in_many_windows_has_one_vote_for_each_pair(database: Database, voting: Evaluation) -> None:
    found = await asyncio.gather(*(dealt(database, voting) for _ in range(6)))
    for one in found:
        await choose(database, voting, one.vote.id, Choice.LEFT)
    async with database.reading() as session:
        cast = await EvaluationRepository(session).votes(voting.id)
    assert len({one.position for one in cast}) == len(cast)


async def test_a_vote_can_be_changed_and_taken_back_and_then_comes_up_again(
    database: Database, voting: Evaluation
) -> None:
    first = await dealt(database, voting)
    await choose(database, voting, first.vote.id, Choice.LEFT)
    await choose(database, voting, first.vote.id, Choice.TIE)
    assert await cast_votes(database, voting) == {first.vote.id: 0.5}
    await dealt(database, voting)
    async with database.transaction() as session:
        await votes.undo(session, ADA, voting.id, first.vote.id)
    assert await cast_votes(database, voting) == {}
    assert (await dealt(database, voting)).vote.id == first.vote.id


async def test_the_sequential_test_goes_by_what_was_said_first(database: Database, voting: Evaluation) -> None:
    """Else whoever looks at it after each vote could change those that went against what they hope for."""

    async def tested() -> tuple[int, float, int]:
        [pair] = (await results(database, voting)).judges[0].pairs
        return pair.sequential.num, pair.sequential.e_value, pair.wins

    ids = []
    for number in range(10):
        pair = await dealt(database, voting)
        if number == 0:
            await choose(database, voting, pair.vote.id, Choice.SKIP)  # says nothing
        good_left = "good" in pair.left
        await choose(database, voting, pair.vote.id, Choice.LEFT if good_left == (number < 5) else Choice.RIGHT)
        ids.append(pair.vote.id)
    first = await tested()
    assert first == (10, first[1], 5)
    for number, vote_id in enumerate(ids[5:]):
        async with database.transaction() as session:
            vote = await votes.undo(session, ADA, voting.id, vote_id)
        assert await tested() == (*first[:2], 5 + number)
        await choose(database, voting, vote_id, Choice.LEFT if vote.model_left else Choice.RIGHT)
        assert await tested() == (*first[:2], 6 + number)


async def test_a_vote_that_both_are_bad_is_a_tie_and_told_from_one(database: Database, voting: Evaluation) -> None:
    first = await dealt(database, voting)
    for choice in (Choice.BOTH_BAD, Choice.TIE, Choice.BOTH_BAD):
        await choose(database, voting, first.vote.id, choice)
        assert await cast_votes(database, voting) == {first.vote.id: 0.5}
        async with database.reading() as session:
            (kept,) = await EvaluationRepository(session).votes(voting.id)
        assert votes.choice_of(kept) is choice


async def test_a_skipped_pair_says_nothing_and_does_not_come_back(database: Database, voting: Evaluation) -> None:
    first = await dealt(database, voting)
    await choose(database, voting, first.vote.id, Choice.SKIP)
    assert await cast_votes(database, voting) == {first.vote.id: None}
    assert (await dealt(database, voting)).vote.position != first.vote.position


async def test_pairs_with_few_votes_come_first(database: Database, voting: Evaluation) -> None:
    seen = set()
    for number in range(10):
        one = await dealt(database, voting, voter(str(number)))
        await choose(database, voting, one.vote.id, Choice.TIE, voter(str(number)))
        seen.add(one.vote.position)
    assert seen == set(range(10))


async def test_a_closed_evaluation_takes_no_votes(database: Database, voting: Evaluation) -> None:
    first = await dealt(database, voting)
    async with database.transaction() as session:
        await evaluations.close(session, "ada", voting.id)
    with pytest.raises(InvalidState):
        await choose(database, voting, first.vote.id, Choice.LEFT)
    with pytest.raises(InvalidState):
        await votes.deal(database, ADA, voting.id)


async def test_a_judge_who_is_not_asked_for_votes_cannot_be_voted_for(database: Database, voting: Evaluation) -> None:
    with pytest.raises(InvalidRequest):
        await votes.deal(database, ADA, voting.id, "judge")
