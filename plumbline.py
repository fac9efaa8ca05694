"""`import plumbline`: the client of a Plumbline server."""

from api.client import ApiError, AsyncClient, Client, NotPlumbline, PlumblineError, Unreachable
from service.spec import AlignmentJob

__all__ = ["AlignmentJob", "ApiError", "AsyncClient", "Client", "NotPlumbline", "PlumblineError", "Unreachable"]
