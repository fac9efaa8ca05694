"""Labels of jobs in a table of their own, so that a list by labels does not read every job's specification"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_EACH = {
    "sqlite": "json_each(jobs.spec, '$.metadata') AS label WHERE json_type(jobs.spec, '$.metadata') = 'object'",
    "postgresql": "LATERAL json_each_text(CASE json_typeof(jobs.spec->'metadata') WHEN 'object' "
    "THEN jobs.spec->'metadata' END) AS label WHERE true",
}


def upgrade() -> None:
    op.create_table(
        "job_labels",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=512), nullable=False),
        sa.Column("project_id", sa.String(length=200), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_labels_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", "name", name=op.f("pk_job_labels")),
    )
    op.execute(
        "INSERT INTO job_labels (job_id, name, value, project_id) "  # noqa: S608 - of the two texts above
        "SELECT jobs.id, label.key, label.value, jobs.project_id "
        f"FROM jobs CROSS JOIN {_EACH[op.get_bind().dialect.name]} AND jobs.deleted_at IS NULL"
    )
    op.create_index("ix_job_labels_label", "job_labels", ["project_id", "name", "value", "job_id"])
