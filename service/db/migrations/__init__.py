"""Alembic's environment. A package, so that a wheel carries it."""
