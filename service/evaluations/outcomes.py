"""Verdicts and votes to the outcomes that statistics are made of."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from service.db.evaluation_tables import EvaluationVote

Pair = tuple[int, int]  # model, baseline


class Verdict(NamedTuple):
    """Of an EvaluationVerdict what is counted."""

    judge: int
    position: int
    model: int
    baseline: int
    model_first: bool
    outcome: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One judgement: of `model`, 1 won, 0 lost, 0.5 a tie; of a judge's two orders, their mean."""

    position: int
    pair: Pair
    value: float


@dataclass(frozen=True, slots=True)
class Shown:
    """A judgement with the place that an answer was shown at. comparison: what was compared, and by whom if a person
    judged it, who sees each pair in one order only."""

    position: int
    pair: Pair
    value: float
    model_first: bool
    comparison: object

    @property
    def first_won(self) -> float:
        return self.value if self.model_first else 1 - self.value


@dataclass(frozen=True)
class Judged:
    """Of one judge. outcomes: in the order in which they count. sequence: one for each prompt, of each pair.
    num, failed: verdicts or votes with and without an outcome.

    ratings: by rater, an outcome for each (position, pair).
    """

    outcomes: Sequence[Outcome]
    shown: Sequence[Shown]
    sequence: Mapping[Pair, Sequence[float]]
    ratings: Mapping[str, Mapping[tuple[int, Pair], float]]
    num: int
    failed: int
    voters: int | None


def drawn(evaluation_id: str, num_items: int) -> list[int]:
    """The positions of an evaluation's prompts in the order in which machines judge them: drawn once for all by its ID,
    so that what a file is sorted by does not come first in the sequence that decides."""
    return sorted(range(num_items), key=lambda at: hashlib.sha256(f"{evaluation_id} {at}".encode()).digest())


def of_verdicts(verdicts: Iterable[Verdict], name: str, order: Sequence[int], *, complete: bool) -> Judged:
    """verdicts: of one judge. A pair whose verdict in one of the orders is missing or could not be read has no outcome:
    the other one alone would be the judge's liking for a place as much as for an answer.

    order: of all positions, as `drawn`. complete: no more will come; until then the sequence ends at the first prompt
    that is not judged in both orders, so that what is easily judged does not come first.
    """
    rows = list(verdicts)
    ranks = {position: rank for rank, position in enumerate(order)}
    by_place: dict[tuple[int, Pair], list[Verdict]] = defaultdict(list)
    for row in rows:
        by_place[row.position, (row.model, row.baseline)].append(row)
    outcomes: list[Outcome] = []
    shown: list[Shown] = []
    sequence: dict[Pair, list[float]] = defaultdict(list)
    last: dict[Pair, int] = {}
    ended: set[Pair] = set()
    for (position, pair), found in sorted(by_place.items(), key=lambda one: (ranks[one[0][0]], one[0][1])):
        values = {one.model_first: one.outcome for one in found if one.outcome is not None}
        in_step = complete or (len(found) == 2 and ranks[position] == last.get(pair, -1) + 1)
        if not in_step:
            ended.add(pair)
        last[pair] = ranks[position]
        if len(values) < 2:
            continue
        mean = sum(values.values()) / 2
        outcomes.append(Outcome(position, pair, mean))
        shown += [Shown(position, pair, value, model_first, (position, pair)) for model_first, value in values.items()]
        if pair not in ended:
            sequence[pair].append(mean)
    num = sum(row.outcome is not None for row in rows)
    ratings = {name: {(one.position, one.pair): decided(one.value) for one in outcomes}}
    return Judged(outcomes, shown, sequence, ratings, num, len(rows) - num, None)


def of_votes(votes: Iterable[EvaluationVote], name: str) -> Judged:
    """votes: of one judge, those that were cast, in that order. The sequence is of what was said first, also where that
    was changed or taken back since."""
    votes = list(votes)
    outcomes: list[Outcome] = []
    shown: list[Shown] = []
    sequence: dict[Pair, list[float]] = defaultdict(list)
    ratings: dict[str, dict[tuple[int, Pair], float]] = defaultdict(dict)
    failed = 0
    for vote in votes:
        if vote.voted_at is None:  # taken back
            continue
        if vote.outcome is None:
            failed += 1
            continue
        pair = vote.model, vote.baseline
        outcomes.append(Outcome(vote.position, pair, vote.outcome))
        shown.append(Shown(vote.position, pair, vote.outcome, vote.model_left, vote.id))
        ratings[f"{name}: {vote.voter}"][vote.position, pair] = vote.outcome
    firsts = [(vote.first_voted_at, vote.id, vote) for vote in votes if vote.first_voted_at is not None]
    seen: set[tuple[int, Pair]] = set()
    for _, _, vote in sorted(firsts, key=lambda one: one[:2]):
        pair = vote.model, vote.baseline
        if vote.first_outcome is not None and (vote.position, pair) not in seen:
            seen.add((vote.position, pair))  # another vote on the same prompt is no independent news
            sequence[pair].append(vote.first_outcome)
    return Judged(outcomes, shown, sequence, ratings, len(outcomes), failed, len(ratings))


def on_whole_prompts(votes: Iterable[EvaluationVote], num_pairs: int) -> list[EvaluationVote]:
    """The votes of people on prompts of which they have judged every pair. Of more than two models each answer is dealt
    again beside another: what is counted of the first pair would tell whose it is, before the second vote."""
    votes = list(votes)
    judged: dict[tuple[str, int], set[Pair]] = defaultdict(set)
    for vote in votes:
        if vote.first_voted_at is not None:
            judged[vote.voter, vote.position].add((vote.model, vote.baseline))
    return [vote for vote in votes if len(judged[vote.voter, vote.position]) == num_pairs]


def majority(outcomes: Iterable[Outcome]) -> dict[tuple[int, Pair], float]:
    """What a judge's outcomes on a pair of answers come to, by (position, pair)."""
    values: dict[tuple[int, Pair], list[float]] = defaultdict(list)
    for one in outcomes:
        values[one.position, one.pair].append(one.value)
    return {at: decided(sum(found) / len(found)) for at, found in values.items()}


def decided(value: float) -> float:
    """A mean outcome to win, loss or tie."""
    return 1.0 if value > 0.5 else 0.0 if value < 0.5 else 0.5
