"""Leases of the controllers, an index for lists by state; on PostgreSQL, notifications of what changes about a job"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

# In the database rather than beside each write: whatever changes a job wakes those who follow it. PostgreSQL tells a
# transaction's listeners after its commit, and of the same job only once.
_FUNCTION = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('plumbline_jobs', {job});
    RETURN NULL;
END $$
"""
_TRIGGER = "CREATE TRIGGER {name} AFTER {events} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("holder", sa.String(length=200), nullable=False),
        sa.Column("term", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_index("ix_jobs_project_id_state_id", "jobs", ["project_id", "state", "id"])
    # With the number: whether a step was repeated is then one look into the index, also where SQLite has no statistics.
    op.drop_index("ix_metrics_job_step", "metrics")
    op.create_index("ix_metrics_job_step_number", "metrics", ["job_id", "split", "step", "number"])
    if op.get_bind().dialect.name != "postgresql":
        return
    for name, table, events, job in (
        ("notify_job", "jobs", "UPDATE OR DELETE", "OLD.id"),
        ("notify_deployment_gone", "deployments", "UPDATE OR DELETE", "OLD.job_id"),
        ("notify_deployment", "deployments", "INSERT", "NEW.job_id"),
    ):
        op.execute(_FUNCTION.format(name=name, job=job))
        op.execute(_TRIGGER.format(name=name, table=table, events=events))
