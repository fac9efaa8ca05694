"""Flags of mislabelled pairs, and what a file was made from"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "pair_flags",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("row", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("action", sa.String(length=20), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("user_id", sa.String(length=40), nullable=True),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_pair_flags_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", "row", name=op.f("pk_pair_flags")),
    )
    op.add_column("files", sa.Column("derived_from", sa.JSON(), nullable=True))
