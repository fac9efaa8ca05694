"""The tables of evaluations. What was asked of a model or judge is a row under a unique key, so that nothing that has
been answered is asked again."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Float, ForeignKey, Index, String, Text, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables import Base
from service.evaluations.states import EvaluationState


class Evaluation(Base):
    __tablename__ = "evaluations"
    __table_args__ = (
        UniqueConstraint("project_id", "idempotency_key"),
        Index("ix_evaluations_project_id_id", "project_id", "id"),
        Index("ix_evaluations_job_id", "job_id"),
        Index("ix_evaluations_state", "state"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(200))
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    body_sha256: Mapped[str] = mapped_column(String(64))
    name: Mapped[str | None] = mapped_column(String(200))
    # The job that the last of its models comes from: whose report and card it belongs to. It may be deleted since
    job_id: Mapped[str | None] = mapped_column(String(40))
    spec: Mapped[dict[str, Any]]  # service.evaluations.request.EvaluationRequest, without inline prompts
    state: Mapped[EvaluationState]
    error: Mapped[dict[str, Any] | None]  # {code, message}; `waiting` while it runs: a server does not answer
    num_items: Mapped[int]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class EvaluationItem(Base):
    """One prompt, numbered from 0."""

    __tablename__ = "evaluation_items"

    evaluation_id: Mapped[str] = mapped_column(ForeignKey("evaluations.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    prompt: Mapped[Any] = mapped_column(JSON)  # a text, or a list of messages
    category: Mapped[str | None] = mapped_column(String(200))


class EvaluationAnswer(Base):
    """What a model said, or why it did not. `model`: its place in the request."""

    __tablename__ = "evaluation_answers"

    evaluation_id: Mapped[str] = mapped_column(ForeignKey("evaluations.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    model: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str | None] = mapped_column(Text)
    finish_reason: Mapped[str | None] = mapped_column(String(40))
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    # {path, url, body without the prompt}: with the item, all that is needed to ask again
    request: Mapped[dict[str, Any]]
    engine: Mapped[str | None] = mapped_column(String(200))  # as the server names what answered
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]


class EvaluationVerdict(Base):
    """What an LLM judge said of a pair in one order. Both models and the judge by their places in the request."""

    __tablename__ = "evaluation_verdicts"

    evaluation_id: Mapped[str] = mapped_column(ForeignKey("evaluations.id"), primary_key=True)
    judge: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    model: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    baseline: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    model_first: Mapped[bool] = mapped_column(primary_key=True)  # shown as A
    outcome: Mapped[float | None] = mapped_column(
        Float
    )  # of `model`: 1, 0 or 0.5; none: no verdict could be had, see `failure`
    reply: Mapped[str | None] = mapped_column(Text)
    failure: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]


class EvaluationVote(Base):
    """A pair that was dealt to a voter, and the vote. One for each voter and pair."""

    __tablename__ = "evaluation_votes"
    __table_args__ = (
        UniqueConstraint(
            "evaluation_id", "judge", "voter", "position", "model", "baseline", name="uq_evaluation_votes_one_each"
        ),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    evaluation_id: Mapped[str] = mapped_column(ForeignKey("evaluations.id"))
    judge: Mapped[int]
    voter: Mapped[str] = mapped_column(String(40))  # ID of a user, or of a key without one
    position: Mapped[int]
    model: Mapped[int]
    baseline: Mapped[int]
    model_left: Mapped[bool]  # drawn by chance, and kept from the voter
    outcome: Mapped[float | None] = mapped_column(Float)  # of `model`; none: not voted on, or skipped
    both_bad: Mapped[bool] = mapped_column(server_default=false())  # of a tie: neither answer will do
    dealt_at: Mapped[datetime]
    voted_at: Mapped[datetime | None]
    # What the voter said first, and when: kept when they change it or take it back
    first_outcome: Mapped[float | None] = mapped_column(Float)
    first_voted_at: Mapped[datetime | None]


class EvaluationScore(Base):
    """What a metric says of an answer."""

    __tablename__ = "evaluation_scores"

    evaluation_id: Mapped[str] = mapped_column(ForeignKey("evaluations.id"), primary_key=True)
    judge: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    model: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[float | None] = mapped_column(Float)
    failure: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]


class Gate(Base):
    """What an evaluation must show before a model may be promoted: to one name, or with `*` to any of the project."""

    __tablename__ = "gates"

    project_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    model_name: Mapped[str] = mapped_column(String(200), primary_key=True)
    rule: Mapped[dict[str, Any]]  # service.evaluations.gate.Rule
    updated_at: Mapped[datetime]
