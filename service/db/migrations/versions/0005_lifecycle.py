"""Jobs that are paused, retried, cloned, deleted and kept to a budget of GPU-hours; sweeps"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=200), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("changes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweeps")),
        sa.UniqueConstraint("project_id", "idempotency_key", name=op.f("uq_sweeps_project_id_idempotency_key")),
    )
    op.create_index("ix_sweeps_project_id_id", "sweeps", ["project_id", "id"])
    op.add_column("jobs", sa.Column("num_failures", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("gpu_seconds", sa.Float(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("cloned_from", sa.String(length=40), nullable=True))
    for name in ("not_before", "pause_requested_at", "deleted_at", "purged_at"):
        op.add_column("jobs", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.add_column("attempts", sa.Column("scored_at", sa.DateTime(timezone=True), nullable=True))
    # In SQL of both databases: Alembic adds no column with a foreign key to a table of SQLite.
    op.execute(
        "ALTER TABLE jobs ADD COLUMN sweep_id VARCHAR(40) CONSTRAINT fk_jobs_sweep_id_sweeps REFERENCES sweeps (id)"
    )
    op.add_column("jobs", sa.Column("sweep_index", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("reference_group", sa.String(length=80), nullable=True))
    op.create_index(op.f("ix_jobs_sweep_id"), "jobs", ["sweep_id"])
    op.create_index(op.f("ix_jobs_reference_group"), "jobs", ["reference_group"])
