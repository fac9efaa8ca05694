"""The database and the application of the other tests."""

from tests.api.conftest import ada, bob, body, client, database, server, settings

__all__ = ["ada", "bob", "body", "client", "database", "server", "settings"]
