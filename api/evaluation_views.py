"""What clients see of evaluations: answers, votes, and the evaluation itself. Results are in `service.evaluations`."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from api.views import View
from service.evaluations import judge_prompt
from service.evaluations.request import EvaluationRequest, LlmJudge
from service.evaluations.states import EvaluationState
from service.evaluations.votes import Choice, choice_of

if TYPE_CHECKING:  # the client reads answers by these models, and needs no database
    from service.db import evaluation_tables as tables
    from service.evaluations.votes import Dealt

Question = str | list[dict[str, Any]]


class EvaluationError(View):
    code: str
    message: str


class EvaluationProgress(View):
    """What there is so far, of what machines are asked for."""

    answers: int
    answers_total: int
    verdicts: int
    verdicts_total: int
    scores: int
    scores_total: int
    votes: int = Field(description="Decided votes of people.")


class EvaluationView(View):
    id: str = Field(examples=["eval-019316f0a6b2f3c1d4e5a"])
    object: Literal["evaluation"] = "evaluation"
    name: str | None
    state: EvaluationState
    job_id: str | None = Field(description="The job that the last of its models comes from.")
    spec: dict[str, Any] = Field(description="What was asked for, defaults filled in; inline prompts are its items.")
    models: list[str] = Field(description="Their names; items, votes and results number them from 0 in this order.")
    judges: list[str]
    num_items: int
    error: EvaluationError | None = Field(
        description="Why it failed; with the code `waiting`, the server that a running one waits for."
    )
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, row: "tables.Evaluation") -> "EvaluationView":
        return cls(**_members(row))


class EvaluationWithProgress(EvaluationView):
    progress: EvaluationProgress
    judge_prompts: dict[str, str] = Field(
        description="By judge, the prompt that an LLM judge is given, by which its verdicts are to be understood."
    )
    judge_prompt_versions: dict[str, str] = Field(description="Which prompt that is: its name, or a digest of it.")

    @classmethod
    def made(
        cls, row: "tables.Evaluation", request: EvaluationRequest, progress: EvaluationProgress
    ) -> "EvaluationWithProgress":
        llms = [judge for judge in request.judges if isinstance(judge, LlmJudge)]
        return cls(
            **_members(row),
            progress=progress,
            judge_prompts={judge.name: judge_prompt.text_of(judge.prompt) for judge in llms},
            judge_prompt_versions={judge.name: judge_prompt.version(judge.prompt) for judge in llms},
        )


class EvaluationPage(View):
    data: list[EvaluationView]
    next_cursor: str | None = Field(description="`cursor` of the next page; null at the end.")


class JudgePromptView(View):
    name: str
    text: str


class JudgePromptList(View):
    data: list[JudgePromptView]


class MetricList(View):
    data: list[str] = Field(description="Names of entry points of the group `plumbline.metrics`.")


class AnswerView(View):
    model: int
    text: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    request: dict[str, Any] = Field(description="Where it was asked and how it was sampled, with its seed.")
    engine: str | None = Field(description="As the server names what answered.")
    error: str | None = Field(description="Why there is no answer.")


class VerdictView(View):
    judge: int
    model: int
    baseline: int
    model_first: bool = Field(description="Whether `model` was shown as A.")
    outcome: float | None = Field(description="Of `model`: 1 won, 0 lost, 0.5 a tie; null: see `failure`.")
    reply: str | None
    failure: str | None


class ScoreView(View):
    judge: int
    model: int
    value: float | None
    failure: str | None


class ItemView(View):
    position: int
    prompt: Question
    category: str | None
    answers: list[AnswerView]
    verdicts: list[VerdictView]
    scores: list[ScoreView]


class ItemPage(View):
    data: list[ItemView]
    next_after: int | None = Field(description="`after` of the next page; null at the end.")


class DealView(View):
    """Two answers whose models are not told."""

    vote_id: str = Field(description="What the vote is cast by.")
    position: int
    prompt: Question
    category: str | None
    left: str
    right: str
    remaining: int = Field(description="Pairs that you could vote on yet, this one among them.")

    @classmethod
    def of(cls, dealt: "Dealt") -> "DealView":
        return cls(
            vote_id=dealt.vote.id,
            position=dealt.vote.position,
            prompt=dealt.item.prompt,
            category=dealt.item.category,
            left=dealt.left,
            right=dealt.right,
            remaining=dealt.remaining,
        )


class Deal(View):
    deal: DealView | None = Field(description="Null when there is nothing for you to vote on, or nothing yet.")


class VoteView(View):
    id: str
    judge: str
    position: int
    choice: Choice | None = Field(description="Null while it is not voted on.")
    dealt_at: datetime
    voted_at: datetime | None
    left: str | None = Field(
        description="Name of the model that was on this side; null until the evaluation has ended."
    )
    right: str | None

    @classmethod
    def of(cls, vote: "tables.EvaluationVote", request: EvaluationRequest, *, revealed: bool) -> "VoteView":
        sides = [request.models[vote.model].name, request.models[vote.baseline].name]
        left, right = sides if vote.model_left else sides[::-1]
        return cls(
            id=vote.id,
            judge=request.judges[vote.judge].name,
            position=vote.position,
            choice=choice_of(vote),
            dealt_at=vote.dealt_at,
            voted_at=vote.voted_at,
            left=left if revealed else None,
            right=right if revealed else None,
        )


class VoteList(View):
    data: list[VoteView]


def _members(row: "tables.Evaluation") -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "state": row.state,
        "job_id": row.job_id,
        "spec": row.spec,
        "models": [one["name"] for one in row.spec["models"]],
        "judges": [one["name"] for one in row.spec["judges"]],
        "num_items": row.num_items,
        "error": row.error,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
    }
