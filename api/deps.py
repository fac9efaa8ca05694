"""What routes are given: the settings, the database, and who is asking."""

from typing import Annotated

import httpx
from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.db.session import Database
from service.errors import InvalidRequest
from service.settings import Settings

_bearer = HTTPBearer(auto_error=False, scheme_name="API key", description="`Authorization: Bearer KEY`")


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


def _serve_client(request: Request) -> httpx.AsyncClient:
    client: httpx.AsyncClient = request.app.state.serve_client
    return client


SettingsDep = Annotated[Settings, Depends(_settings)]
DatabaseDep = Annotated[Database, Depends(_database)]
ServeClientDep = Annotated[httpx.AsyncClient, Depends(_serve_client)]
# For the OpenAPI document: api.authentication has looked at the header before the request gets here.
Documented = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def _project(request: Request, _: Documented) -> str:
    project_id: str = request.state.project_id
    return project_id


async def _attempt_id(attempt_id: str, _: Documented) -> str:
    return attempt_id


async def _idempotency_key(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Makes it safe to send the request again: the same key and body get the same job, with the "
            "header `Idempotent-Replayed: true`; another body with the key is refused.",
        ),
    ] = None,
) -> str | None:
    if len(request.headers.getlist("idempotency-key")) > 1:
        raise InvalidRequest("The request has several Idempotency-Keys: send one.", field="Idempotency-Key")
    return idempotency_key


ProjectDep = Annotated[str, Depends(_project)]
AttemptIdDep = Annotated[str, Depends(_attempt_id)]
IdempotencyKeyDep = Annotated[str | None, Depends(_idempotency_key)]
