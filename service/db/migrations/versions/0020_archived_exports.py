"""Exported checkpoints in an object store"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0018"
additive = True


def upgrade() -> None:
    op.add_column("checkpoint_exports", sa.Column("archive", sa.String(length=1000), nullable=True))
