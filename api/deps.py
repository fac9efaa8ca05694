"""What routes are given: the settings, the database, and who is asking.

A route that takes `ProjectDep` is for viewers if its method is GET, and for members otherwise; one that takes
`ReadProjectDep` is for viewers whatever its method, since it only reads. `AdminDep` and `OperatorDep` ask for more.
`AdministeredDep` is the project that an admin's request is about, `ListedDep` the one that a list is of, None for all.
"""

import asyncio
import time
from typing import Annotated

from aiohttp import ClientSession
from fastapi import Depends, Header, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.feeds import Feeds
from service import audit
from service.db.session import Database
from service.deployments.uses import DeploymentUses
from service.errors import Forbidden, InvalidRequest, NotFound, RateLimited
from service.keys.rate_limit import RateLimiter
from service.keys.roles import Role
from service.keys.service import Caller
from service.keys.uses import KeyUses
from service.paging import MAX_PAGE
from service.previews.service import Previews
from service.queue.view import QueueViews
from service.settings import Settings
from service.telemetry import context
from service.text import storable

_bearer = HTTPBearer(auto_error=False, scheme_name="API key", description="`Authorization: Bearer KEY`")

READING = frozenset({"GET", "HEAD", "OPTIONS"})


# Coroutines, although they wait for nothing: FastAPI sends a plain function to a thread, and back.


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def _feeds(request: Request) -> Feeds:
    feeds: Feeds = request.app.state.feeds
    return feeds


async def _leaving(request: Request) -> asyncio.Event:
    leaving: asyncio.Event = request.app.state.leaving
    return leaving


async def _serve_client(request: Request) -> ClientSession:
    client: ClientSession = request.app.state.serve_client
    return client


async def _deployment_uses(request: Request) -> DeploymentUses:
    uses: DeploymentUses = request.app.state.deployment_uses
    return uses


async def _queue(request: Request) -> QueueViews:
    queue: QueueViews = request.app.state.queue
    return queue


def _previews(request: Request) -> Previews:
    previews: Previews = request.app.state.previews
    return previews


SettingsDep = Annotated[Settings, Depends(_settings)]
DatabaseDep = Annotated[Database, Depends(_database)]
FeedsDep = Annotated[Feeds, Depends(_feeds)]
LeavingDep = Annotated[asyncio.Event, Depends(_leaving)]
DeploymentUsesDep = Annotated[DeploymentUses, Depends(_deployment_uses)]
QueueDep = Annotated[QueueViews, Depends(_queue)]
PreviewsDep = Annotated[Previews, Depends(_previews)]
ServeClientDep = Annotated[ClientSession, Depends(_serve_client)]
# What it holds was looked at before the request got here (api.authentication); here it is for the OpenAPI document.
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def _caller(request: Request, _: Credentials) -> Caller:
    caller: Caller = request.state.caller
    context.add(project_id=caller.project_id, key_id=caller.key_id)
    _spend(request, caller.key_id)
    if (act := audit.current()) is not None:
        route = request.scope["route"]
        act.action = f"{request.method} {route.path}"
        act.project_id, act.key_id, act.user_id = caller.project_id, caller.key_id, caller.user_id
        act.name = caller.name
        act.target = storable(next(iter(request.path_params.values()), None))
    return caller


def _spend(request: Request, key_id: str) -> None:
    """`api.limits` tells the client in headers what is left."""
    uses: KeyUses = request.app.state.key_uses
    uses.note(key_id)
    limiter: RateLimiter = request.app.state.rate_limiter
    request.state.allowance = allowance = limiter.take(key_id, time.monotonic())
    if allowance.retry_after_s is not None:
        raise RateLimited(
            f"This key may send {allowance.limit} requests a minute: try again in {allowance.retry_after_s} s.",
            retry_after_s=allowance.retry_after_s,
        )


CallerDep = Annotated[Caller, Depends(_caller)]


def _require(caller: Caller, role: Role) -> None:
    if not caller.role.covers(role):
        raise Forbidden(f"This needs the role {role}, and your key has {caller.role}: ask an admin of your project.")


async def _project(request: Request, caller: CallerDep) -> str:
    _require(caller, Role.VIEWER if request.method in READING else Role.MEMBER)
    return caller.project_id


async def _read_project(caller: CallerDep) -> str:
    _require(caller, Role.VIEWER)
    audit.reads_only()
    return caller.project_id


async def _admin(caller: CallerDep) -> Caller:
    _require(caller, Role.ADMIN)
    return caller


async def _operator(caller: CallerDep) -> Caller:
    _require(caller, Role.OPERATOR)
    return caller


ProjectDep = Annotated[str, Depends(_project)]
ReadProjectDep = Annotated[str, Depends(_read_project)]
AdminDep = Annotated[Caller, Depends(_admin)]
OperatorDep = Annotated[Caller, Depends(_operator)]


async def _administered(
    caller: AdminDep,
    project: Annotated[str | None, Query(description="Another project than the key's own; for operators.")] = None,
) -> str:
    if project in (None, caller.project_id):
        return caller.project_id
    if caller.role is not Role.OPERATOR:
        raise NotFound("There is no such project among yours. GET /v1/projects lists them.")
    return project or ""


async def _listed(
    request: Request,
    caller: CallerDep,
    project: Annotated[
        str | None, Query(description="Another project than the key's own, or `*` for all; for operators.")
    ] = None,
) -> str | None:
    if project in (None, caller.project_id):
        return await _project(request, caller)
    if caller.role is not Role.OPERATOR:
        raise NotFound("There is no such project among yours. GET /v1/projects lists them.")
    return None if project == "*" else storable(project)


async def _attempt_id(attempt_id: str, _: Credentials) -> str:
    context.add(attempt_id=attempt_id)
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


PageLimit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
PageCursor = Annotated[str | None, Query(description="`next_cursor` of the page before.")]
ListedDep = Annotated[str | None, Depends(_listed)]
AdministeredDep = Annotated[str, Depends(_administered)]
AttemptIdDep = Annotated[str, Depends(_attempt_id)]
IdempotencyKeyDep = Annotated[str | None, Depends(_idempotency_key)]
