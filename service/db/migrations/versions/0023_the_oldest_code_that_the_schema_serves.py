"""The oldest code that the schema serves"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0021"
additive = True


def upgrade() -> None:
    op.create_table("schema_compatibility", sa.Column("oldest_code", sa.String(length=32), primary_key=True))
