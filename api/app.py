"""The HTTP API as an ASGI application.

Nothing that matters is kept in memory between requests, so replicas need not know of each other; each counts for itself
how many requests a key has sent. `uvicorn --factory api.app:create_app` runs one; `plumbline up` runs the controller
beside it.
"""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from api import problems
from api.audit import AuditTrail
from api.authentication import AuthenticateFirst
from api.feeds import Feeds
from api.limits import RateLimitHeaders
from api.middleware import BodyLimit, SecurityHeaders
from api.openai import fine_tuning, generation, models, uploads
from api.openai.errors import errors
from api.routes import (
    audit_log,
    comparisons,
    deployments,
    files,
    health,
    internal,
    jobs,
    keys,
    lifecycle,
    losses,
    members,
    metrics,
    projects,
    queue,
    streams,
    sweeps,
    webhooks,
)
from api.slow_bodies import Pace, SlowBodies
from api.telemetry import Telemetry
from service.db.migrate import is_current
from service.db.session import Database
from service.errors import (
    Forbidden,
    InvalidRequest,
    RateLimited,
    ServiceError,
    TooLarge,
    TooSlow,
    Unauthorized,
    Unavailable,
)
from service.files import service as files_service
from service.files.bucket import bucket
from service.jobs import deletion, published
from service.keys.rate_limit import RateLimiter
from service.keys.uses import WRITE_EVERY_S, KeyUses
from service.queue.view import QueueViews
from service.settings import Settings
from service.telemetry.database_metrics import DatabaseMetrics

log = logging.getLogger(__name__)

OWN = (
    *(jobs, lifecycle, sweeps, queue, streams, deployments, files, comparisons, losses),
    *(projects, members, keys, audit_log, webhooks),
)

REPORT_BYTES = 16 * 2**20  # of one batch of an attempt's reports, at most
STREAMED = re.compile(r"/v1/files|/v1/uploads/[^/]+/parts")  # paths whose bodies are files
DASHBOARD = Path(__file__).parent / "dashboard"


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; its database must have been upgraded. Raises ValueError if `settings.secret` is not set, or
    `settings.files_url` needs a package that is not there.

    settings: by default from the environment.
    """
    settings = settings or Settings()
    if settings.secret is None:
        raise ValueError("PLUMBLINE_SECRET is not set: attempts on the cluster could not prove who they are")
    app = FastAPIOffline(  # /docs with Swagger UI from the package: a cluster has no CDN
        title="Plumbline",
        version="0.1.0",
        description="Preference alignment as a service: POST a preference job, get the aligned model served beside its "
        "base. Errors are problem details (RFC 9457) with a stable `code`.",
        redoc_url=None,
        redirect_slashes=False,  # the redirect would repeat whatever Host a client sent
        lifespan=_lifespan(settings),
    )
    if settings.files_url is not None:
        bucket(settings.files_url)  # what it lacks is said now, not at the first upload
    app.state.settings = settings
    app.state.rate_limiter = RateLimiter(settings.requests_per_minute)
    app.state.open_streams = Counter()  # by project; see api.sse
    app.state.key_uses = KeyUses()
    problems.install(app)
    app.include_router(health.router)
    app.include_router(metrics.router)
    of_every_route = problems.problems(
        Unauthorized, Forbidden, RateLimited, InvalidRequest, TooLarge, TooSlow, Unavailable, ServiceError
    )
    for resource in OWN:
        app.include_router(resource.router, prefix="/v1", responses=of_every_route)
    for resource in (fine_tuning, models, uploads, generation):
        app.include_router(resource.router, prefix="/v1", responses=errors(Unauthorized))
    app.include_router(internal.router)
    app.router.default = _Fallback(DASHBOARD)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        internal_max_bytes=max(REPORT_BYTES, settings.max_body_bytes),
        streamed=STREAMED,
    )
    app.add_middleware(SlowBodies, pace=Pace(silence_s=settings.body_silence_s))
    app.add_middleware(AuthenticateFirst)
    app.add_middleware(AuditTrail)
    app.add_middleware(RateLimitHeaders)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Telemetry)  # the last one added is the outermost
    _document_problems(app)
    return app


def _lifespan(settings: Settings) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(settings.sqlalchemy_url)
        await _finish_deletions(database, settings)
        app.state.feeds = Feeds(database)
        # Serve is on loopback or inside the cluster: a proxy from the environment would only be in the way.
        async with httpx.AsyncClient(trust_env=False) as serve_client, app.state.feeds.kept_up_to_date():
            app.state.database, app.state.serve_client = database, serve_client
            app.state.queue = QueueViews(database, settings)
            writer = asyncio.create_task(_write_key_uses(app.state.key_uses, database))
            app.state.database_metrics = DatabaseMetrics(database)
            yield
            writer.cancel()
            await asyncio.wait([writer])
        await database.close()

    return lifespan


async def _write_key_uses(uses: KeyUses, database: Database) -> None:
    """Every minute, and once more when the process is told to end."""
    ending = False
    while not ending:
        try:
            await asyncio.sleep(WRITE_EVERY_S)
        except asyncio.CancelledError:
            ending = True
        try:
            await uses.write(database)
        except (OperationalError, InterfaceError):
            log.warning("the database does not answer; when keys were last used is written later")


async def _finish_deletions(database: Database, settings: Settings) -> None:
    """Of processes that were killed. A database that is not there yet has none, and is no reason not to start."""
    try:
        if await is_current(database):
            await files_service.finish_deletions(database, settings)
            await published.finish_deletions(database, settings)
            await deletion.finish_deletions(database, settings)
    except (OperationalError, InterfaceError):
        log.warning(
            "the database does not answer; what is left of deleted files, models and jobs stays until the next start"
        )


class _Fallback:
    """For paths that no route knows: the dashboard's files, except under the API's own prefixes.

    Not a mount at `/`, which would answer for a wrong method on a known path too.
    """

    def __init__(self, directory: Path) -> None:
        self._files: ASGIApp | None = StaticFiles(directory=directory, html=True) if directory.is_dir() else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._files is None or scope["path"].startswith(("/v1/", "/internal/")):
            raise HTTPException(404)
        await self._files(scope, receive, send)


def _document_problems(app: FastAPI) -> None:
    """Put the schema that `problems.problems` refers to into the OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schema = problems.ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"].setdefault("ProblemDetails", schema)
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way
