"""What was an owner is a project"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for table in ("api_keys", "files", "jobs", "calls"):
        # In SQL of both databases: Alembic would copy SQLite's whole table, and others refer to it. Unique
        # constraints keep their names, which SQLite cannot change.
        op.execute(f"ALTER TABLE {table} RENAME COLUMN owner TO project_id")
    op.drop_index("ix_files_owner", "files")
    op.create_index("ix_files_project_id", "files", ["project_id"])
    op.drop_index("ix_jobs_owner_id", "jobs")
    op.create_index("ix_jobs_project_id_id", "jobs", ["project_id", "id"])
