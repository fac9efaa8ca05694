"""Evaluations: prompts, answers, verdicts, votes, scores; gates of promotion"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "evaluations",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=200), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("job_id", sa.String(length=40), nullable=True),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("num_items", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
        sa.UniqueConstraint("project_id", "idempotency_key", name=op.f("uq_evaluations_project_id_idempotency_key")),
    )
    op.create_index("ix_evaluations_project_id_id", "evaluations", ["project_id", "id"])
    op.create_index("ix_evaluations_job_id", "evaluations", ["job_id"])
    op.create_index("ix_evaluations_state", "evaluations", ["state"])
    op.create_table(
        "evaluation_items",
        _evaluation(),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("prompt", sa.JSON(), nullable=False),
        sa.Column("category", sa.String(length=200), nullable=True),
        sa.PrimaryKeyConstraint("evaluation_id", "position", name=op.f("pk_evaluation_items")),
        _belongs_to_evaluation("evaluation_items"),
    )
    op.create_table(
        "evaluation_answers",
        _evaluation(),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("model", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("finish_reason", sa.String(length=40), nullable=True),
        sa.Column("prompt_tokens", sa.Integer(), nullable=True),
        sa.Column("completion_tokens", sa.Integer(), nullable=True),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("engine", sa.String(length=200), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("evaluation_id", "position", "model", name=op.f("pk_evaluation_answers")),
        _belongs_to_evaluation("evaluation_answers"),
    )
    op.create_table(
        "evaluation_verdicts",
        _evaluation(),
        sa.Column("judge", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("model", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("baseline", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("model_first", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.Float(), nullable=True),
        sa.Column("reply", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint(
            "evaluation_id",
            "judge",
            "position",
            "model",
            "baseline",
            "model_first",
            name=op.f("pk_evaluation_verdicts"),
        ),
        _belongs_to_evaluation("evaluation_verdicts"),
    )
    op.create_table(
        "evaluation_votes",
        sa.Column("id", sa.String(length=40), nullable=False),
        _evaluation(),
        sa.Column("judge", sa.Integer(), nullable=False),
        sa.Column("voter", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("model", sa.Integer(), nullable=False),
        sa.Column("baseline", sa.Integer(), nullable=False),
        sa.Column("model_left", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.Float(), nullable=True),
        sa.Column("dealt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("voted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluation_votes")),
        _belongs_to_evaluation("evaluation_votes"),
        sa.UniqueConstraint(
            "evaluation_id",
            "judge",
            "voter",
            "position",
            "model",
            "baseline",
            name=op.f("uq_evaluation_votes_one_each"),
        ),
    )
    op.create_table(
        "evaluation_scores",
        _evaluation(),
        sa.Column("judge", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("model", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("evaluation_id", "judge", "position", "model", name=op.f("pk_evaluation_scores")),
        _belongs_to_evaluation("evaluation_scores"),
    )
    op.create_table(
        "gates",
        sa.Column("project_id", sa.String(length=200), nullable=False),
        sa.Column("model_name", sa.String(length=200), nullable=False),
        sa.Column("rule", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "model_name", name=op.f("pk_gates")),
    )


def _evaluation() -> sa.Column[str]:
    return sa.Column("evaluation_id", sa.String(length=40), nullable=False)


def _belongs_to_evaluation(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_evaluation_id_evaluations")
    return sa.ForeignKeyConstraint(["evaluation_id"], ["evaluations.id"], name=name)
