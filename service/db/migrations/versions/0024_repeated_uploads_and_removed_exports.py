"""Files and uploads whose create was sent again; exports whose models were deleted"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
additive = True


def upgrade() -> None:
    op.add_column("checkpoint_exports", sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
    for table in ("files", "uploads"):
        op.add_column(table, sa.Column("call_id", sa.String(length=40), nullable=True))
        op.create_index(f"ix_{table}_call_id", table, ["call_id"], unique=True)
