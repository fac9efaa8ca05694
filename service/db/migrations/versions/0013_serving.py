"""Checkpoints that are exported and deployed, deployments that sleep, and names that models are promoted to"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    _deployments_by_id()
    op.create_table(
        "checkpoint_exports",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("step", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_checkpoint_exports_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", "step", name=op.f("pk_checkpoint_exports")),
    )
    op.create_table(
        "model_names",
        sa.Column("project_id", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("current_id", sa.String(length=40), nullable=True),
        sa.Column("pending_id", sa.String(length=40), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "name", name=op.f("pk_model_names")),
    )
    op.create_table(
        "promotions",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("restores", sa.String(length=40), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("became_current_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_promotions_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotions")),
    )
    op.create_index("ix_promotions_job_id", "promotions", ["job_id"])
    op.create_index("ix_promotions_project_id_name_id", "promotions", ["project_id", "name", "id"])


def _deployments_by_id() -> None:
    """A job may have several: the key is no longer the job. What was deployed is deployed anew, by its row."""
    op.execute("CREATE TABLE deployments_before AS SELECT * FROM deployments")
    op.drop_table("deployments")
    op.create_table(
        "deployments",
        sa.Column("id", sa.String(length=60), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("places", sa.JSON(), nullable=True),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deploying_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("start_s", sa.Float(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_deployments_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployments")),
    )
    op.create_index("ix_deployments_job_id", "deployments", ["job_id"])
    op.execute(
        "INSERT INTO deployments (id, job_id, state, message, generation, deploying_since, created_at, updated_at) "
        "SELECT job_id, job_id, CASE state WHEN 'ready' THEN 'deploying' ELSE state END, message, generation + 1, "
        "updated_at, created_at, updated_at FROM deployments_before"
    )
    op.drop_table("deployments_before")
