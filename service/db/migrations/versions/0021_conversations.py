"""Conversations with several models side by side"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
additive = True


def upgrade() -> None:
    op.create_table(
        "conversations",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=200), nullable=False),
        sa.Column("owner_id", sa.String(length=40), nullable=False),
        sa.Column("start", sa.String(length=200), nullable=False),
        sa.Column("models", sa.JSON(), nullable=False),
        sa.Column("num_turns", sa.Integer(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conversations")),
    )
    op.create_index("ix_conversations_project_id_owner_id_id", "conversations", ["project_id", "owner_id", "id"])
