"""What routes are given: the settings, the database, and who is asking."""

from typing import Annotated

import httpx
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.db.session import Database
from service.errors import Unauthorized
from service.jobs.tokens import is_token_of
from service.keys.service import verify_key
from service.settings import Settings
from service.telemetry import context

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
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def _project(database: DatabaseDep, credentials: Credentials) -> str:
    if credentials is None:
        raise Unauthorized
    async with database.reading() as session:
        key = await verify_key(session, credentials.credentials)
    context.add(project_id=key.project_id, key_id=key.id)
    return key.project_id


async def _attempt_id(attempt_id: str, settings: SettingsDep, credentials: Credentials) -> str:
    if credentials is None or not is_token_of(settings, attempt_id, credentials.credentials):
        raise Unauthorized
    context.add(attempt_id=attempt_id)
    return attempt_id


ProjectDep = Annotated[str, Depends(_project)]
AttemptIdDep = Annotated[str, Depends(_attempt_id)]
