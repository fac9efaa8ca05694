"""How far jobs have been told to an experiment tracker"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "tracker_runs",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("tracker", sa.String(length=20), nullable=False),
        sa.Column("run_id", sa.String(length=200), nullable=False),
        sa.Column("last_metric", sa.Integer(), nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_tracker_runs_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", "tracker", name=op.f("pk_tracker_runs")),
    )
