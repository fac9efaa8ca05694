"""The Python client: `Client` blocks, `AsyncClient` is awaited; both are exported by the module `plumbline`."""

from api.client.client import AsyncClient, Client
from api.client.errors import ApiError, NotPlumbline, PlumblineError, Unreachable

__all__ = ["ApiError", "AsyncClient", "Client", "NotPlumbline", "PlumblineError", "Unreachable"]
