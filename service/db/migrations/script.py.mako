"""${message}"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
additive = False  # True where the code before works on: tables and columns stay, new ones may be left out by an insert


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
