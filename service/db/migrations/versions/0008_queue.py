"""What the queue decides by, and what it foretold"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("priority", sa.Integer(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("size", sa.JSON(), nullable=True))
    op.create_index("ix_attempts_finished_at", "attempts", ["finished_at"])
    op.create_table(
        "cluster_views",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("nodes", sa.JSON(), nullable=False),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tried_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cluster_views")),
    )
    op.create_table(
        "forecasts",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("moment", sa.String(length=20), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("start_low", sa.DateTime(timezone=True), nullable=True),
        sa.Column("start_high", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finish_low", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finish_high", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_forecasts_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "moment", name=op.f("pk_forecasts")),
    )
    op.create_index("ix_forecasts_made_at", "forecasts", ["made_at"])
