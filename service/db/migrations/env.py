"""Runs migrations in the transaction that `service.db.migrate` has opened."""

from alembic import context

from service.db.tenant_tables import Project

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Project.metadata,
    transactional_ddl=True,
    render_as_batch=True,  # SQLite cannot alter a column in place
)
with context.begin_transaction():
    context.run_migrations()
