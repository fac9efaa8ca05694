"""What Prometheus reads."""

import hmac
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.deps import Credentials, SettingsDep
from api.problems import problems
from service.errors import NotFound, Unauthorized
from service.telemetry.database_metrics import DatabaseMetrics
from service.telemetry.exposition import exposition

router = APIRouter(tags=["health"])

_EXPOSITION: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus's text format"}
}


@router.get(
    "/metrics",
    response_class=Response,
    responses=_EXPOSITION | problems(Unauthorized, NotFound),
)
async def metrics(request: Request, settings: SettingsDep, credentials: Credentials) -> Response:
    """Metrics of this API process and of all jobs (docs/observability.md). `PLUMBLINE_METRICS_TOKEN` is asked for as
    `Authorization: Bearer TOKEN` if it is set; in production there are no metrics without it."""
    if settings.metrics_token is None:
        if settings.environment == "production":
            raise NotFound("There are no metrics here: set PLUMBLINE_METRICS_TOKEN to have them.")
    elif credentials is None or not hmac.compare_digest(
        credentials.credentials.encode(errors="replace"), settings.metrics_token.get_secret_value().encode()
    ):
        raise Unauthorized
    database_metrics: DatabaseMetrics = request.app.state.database_metrics
    content = exposition(await database_metrics.families())
    return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")
