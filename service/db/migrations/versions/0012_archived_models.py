"""Models in an object store; how long projects keep things"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("model_purged_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("model_archived_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("model_archive", sa.String(length=1000), nullable=True))
    op.add_column("projects", sa.Column("retention", sa.JSON(), nullable=True))
    where = sa.text("model_archived_at IS NULL AND model_deleted_at IS NULL AND finished_at IS NOT NULL")
    op.create_index(
        "ix_jobs_not_archived", "jobs", ["state", "finished_at"], sqlite_where=where, postgresql_where=where
    )
