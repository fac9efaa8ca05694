"""Jobs that are paused, retried, cloned, deleted and kept to a budget of GPU-hours"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("num_failures", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("gpu_seconds", sa.Float(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("cloned_from", sa.String(length=40), nullable=True))
    for name in ("not_before", "pause_requested_at", "deleted_at", "purged_at"):
        op.add_column("jobs", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    for name in ("started_at", "scored_at"):
        op.add_column("attempts", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
