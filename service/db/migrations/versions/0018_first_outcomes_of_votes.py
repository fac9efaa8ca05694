"""What a voter said first of a pair, by which the sequential test goes"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column("evaluation_votes", sa.Column("first_outcome", sa.Float(), nullable=True))
    op.add_column("evaluation_votes", sa.Column("first_voted_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(
        "UPDATE evaluation_votes SET first_outcome = outcome, first_voted_at = voted_at WHERE outcome IS NOT NULL"
    )
