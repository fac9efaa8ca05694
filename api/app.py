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
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from api import problems
from api.audit import AuditTrail
from api.authentication import AuthenticateFirst
from api.dashboard_files import DashboardFiles
from api.feeds import Feeds
from api.limits import RateLimitHeaders
from api.middleware import BodyLimit, SecurityHeaders
from api.openai import fine_tuning, generation, models, uploads
from api.openai.errors import errors
from api.places import Places
from api.routes import (
    audit_log,
    checkpoints,
    comparisons,
    conversations,
    deployments,
    evaluation_results,
    evaluations,
    files,
    gates,
    health,
    internal,
    jobs,
    keys,
    lifecycle,
    logs,
    losses,
    members,
    metrics,
    pairs,
    previews,
    projects,
    promotions,
    queue,
    reports,
    schema,
    session,
    streams,
    sweeps,
    votes,
    webhooks,
)
from api.slow_bodies import Pace, SlowBodies
from api.stream_keys import StreamKeys
from api.telemetry import Telemetry
from service.db.migrate import schema_of
from service.db.session import Database
from service.db.trouble import TROUBLE
from service.deployments import uses as deployment_uses
from service.deployments.uses import DeploymentUses
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
from service.files.bucket import bucket
from service.jobs.deletion import finish_deletions
from service.keys.rate_limit import RateLimiter
from service.keys.uses import WRITE_EVERY_S, KeyUses
from service.previews.service import Previews
from service.queue.view import QueueViews
from service.serving.engine import engine_client
from service.settings import Settings
from service.telemetry.database_metrics import DatabaseMetrics
from service.telemetry.storage_metrics import watch_storage

log = logging.getLogger(__name__)

OWN = (
    *(jobs, lifecycle, pairs, sweeps, queue, streams, logs, deployments, checkpoints, promotions, files, previews),
    *(comparisons, conversations, losses, schema),
    *(session, projects, members, keys, audit_log, webhooks),
    *(evaluations, votes, evaluation_results, gates, reports),
)

REPORT_BYTES = 16 * 2**20  # of one batch of an attempt's reports, at most
STREAMED = re.compile(r"/v1/files|/v1/uploads/[^/]+/parts")  # paths whose bodies are files


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
    for url in filter(None, (settings.files_url, settings.models_url)):
        bucket(url)  # what it lacks is said now, not at the first upload
    app.state.settings = settings
    app.state.rate_limiter = RateLimiter(settings.requests_per_minute)
    app.state.open_streams = Counter()  # by project; see api.sse
    app.state.leaving = asyncio.Event()  # set when the process is told to end; see api.http_server
    app.state.key_uses = KeyUses()
    app.state.deployment_uses = DeploymentUses()
    problems.install(app)
    of_openai = errors(Unauthorized)
    # Routes are tried in turn: first those whose every millisecond somebody waits for.
    app.include_router(generation.router, prefix="/v1", responses=of_openai)
    app.include_router(health.router)
    app.include_router(metrics.router)
    of_every_route = problems.problems(
        Unauthorized, Forbidden, RateLimited, InvalidRequest, TooLarge, TooSlow, Unavailable, ServiceError
    )
    for resource in OWN:
        app.include_router(resource.router, prefix="/v1", responses=of_every_route)
    for resource in (fine_tuning, models, uploads):
        app.include_router(resource.router, prefix="/v1", responses=of_openai)
    app.include_router(internal.router)
    app.router.default = DashboardFiles()
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
        app.state.queue = QueueViews(database, settings)
        app.state.feeds = Feeds(database, Places(app.state.queue), app.state.leaving)
        async with engine_client() as serve_client, app.state.feeds.kept_up_to_date():
            app.state.database, app.state.serve_client = database, serve_client
            app.state.previews = Previews(settings)
            app.state.stream_keys = StreamKeys(database)
            background = [
                asyncio.create_task(app.state.stream_keys.keep_looking()),
                asyncio.create_task(_write_uses(app.state.key_uses, database, WRITE_EVERY_S)),
                asyncio.create_task(_write_uses(app.state.deployment_uses, database, deployment_uses.WRITE_EVERY_S)),
            ]
            app.state.database_metrics = DatabaseMetrics(database)
            watch_storage(settings.storage_root)
            yield
            for task in background:
                task.cancel()
            await asyncio.wait(background)
        await database.close()

    return lifespan


async def _write_uses(uses: KeyUses | DeploymentUses, database: Database, every_s: float) -> None:
    """Again and again, and once more when the process is told to end."""
    ending = False
    while not ending:
        try:
            await asyncio.sleep(every_s)
        except asyncio.CancelledError:
            ending = True
        try:
            await uses.write(database)
        except TROUBLE:
            log.warning("the database does not answer; when keys and models were last used is written later")


async def _finish_deletions(database: Database, settings: Settings) -> None:
    """Of processes that were killed. A database that is not there yet has none, and is no reason not to start."""
    try:
        if (await schema_of(database)).serves:
            await finish_deletions(database, settings)
    except (Unavailable, *TROUBLE) as error:
        log.warning("what is left of deleted files, models and jobs stays until the controller looks: %s", error)


def _document_problems(app: FastAPI) -> None:
    """Put the schema that `problems.problems` refers to into the OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schema = problems.ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"].setdefault("ProblemDetails", schema)
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way
