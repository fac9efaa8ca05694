"""Sessions of browsers; who made a job, what a search looks through, and its loss in a few points"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_BATCH = 1000


def upgrade() -> None:
    op.create_table(
        "browser_sessions",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_browser_sessions")),
    )
    op.create_index("ix_browser_sessions_expires_at", "browser_sessions", ["expires_at"])
    op.add_column("jobs", sa.Column("owner", sa.String(length=200), nullable=True))
    op.add_column("jobs", sa.Column("loss_line", sa.JSON(), nullable=True))
    op.add_column("jobs", sa.Column("search", sa.String(length=500), nullable=True))
    _fill_search()
    op.create_index("ix_jobs_project_id_id_search", "jobs", ["project_id", "id", "search"])


def _search_text(job_id: str, spec: Mapping[str, Any]) -> str:
    """As `service.jobs.search` had it then."""
    data, losses, labels = spec.get("data") or {}, spec.get("losses") or [], spec.get("metadata") or {}
    parts = [spec.get("name"), job_id, (spec.get("model") or {}).get("source"), data.get("train")]
    parts += [loss.get("type") for loss in losses]
    parts += [f"{name}={value}" for name, value in labels.items()]
    return " ".join(str(part) for part in parts if part).casefold()[:500]


def _fill_search() -> None:
    """Of the jobs that there are."""
    jobs = sa.table("jobs", sa.column("id", sa.String), sa.column("spec", sa.JSON), sa.column("search", sa.String))
    connection = op.get_bind()
    newest = ""
    while found := connection.execute(
        sa.select(jobs.c.id, jobs.c.spec).where(jobs.c.id > newest).order_by(jobs.c.id).limit(_BATCH)
    ).all():
        filled = [{"of": id, "text": _search_text(id, spec)} for id, spec in found]
        change = sa.update(jobs).where(jobs.c.id == sa.bindparam("of")).values(search=sa.bindparam("text"))
        connection.execute(change, filled)
        newest = found[-1].id
