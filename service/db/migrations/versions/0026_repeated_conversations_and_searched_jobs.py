"""Conversations whose POST was sent again; an index that alone answers a search of the list of jobs"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0024"
additive = True


def upgrade() -> None:
    op.add_column("conversations", sa.Column("idempotency_key", sa.String(length=255), nullable=True))
    op.add_column("conversations", sa.Column("body_sha256", sa.String(length=64), nullable=True))
    columns = ["project_id", "owner_id", "idempotency_key"]
    op.create_index("ix_conversations_idempotency_key", "conversations", columns, unique=True)
    op.drop_index("ix_jobs_project_id_id_search", "jobs")
    op.create_index("ix_jobs_searched", "jobs", ["project_id", "id", "search", "deleted_at", "state"])
