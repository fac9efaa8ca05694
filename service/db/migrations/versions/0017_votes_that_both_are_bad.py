"""Votes that neither answer will do"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("evaluation_votes", sa.Column("both_bad", sa.Boolean(), server_default=sa.false(), nullable=False))
