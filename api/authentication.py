"""Who asks is settled before anything else of a request is looked at: strangers get no byte of a body read."""

from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import database_error, error_response
from service.db.session import Database
from service.errors import ServiceError, Unauthorized
from service.jobs.tokens import is_token_of
from service.keys.service import Caller, verify_key
from service.settings import Settings

_PROJECTS = "/v1/"
_ATTEMPTS = "/internal/attempts/"


class AuthenticateFirst:
    """Answers 401 without a good key (`/v1/`) or the attempt's own token (`/internal/attempts/`), whatever else is
    wrong with the request, and on paths that do not exist too. Routes find the caller in `request.state.caller`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := await _refusal(Request(scope))):
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _refusal(request: Request) -> Response | None:
    path: str = request.scope["path"]
    try:
        if path.startswith(_PROJECTS):
            request.state.caller = await _caller(request)
        elif path.startswith(_ATTEMPTS):
            _check_token(request, path.removeprefix(_ATTEMPTS).partition("/")[0])
    except ServiceError as error:
        return error_response(request, error)
    except (OperationalError, InterfaceError) as error:
        return await database_error(request, error)
    return None


async def _caller(request: Request) -> Caller:
    database: Database = request.app.state.database
    key = _bearer(request)
    async with database.reading() as session:
        return await verify_key(session, key)


def _check_token(request: Request, attempt_id: str) -> None:
    settings: Settings = request.app.state.settings
    if not is_token_of(settings, attempt_id, _bearer(request)):
        raise Unauthorized


def _bearer(request: Request) -> str:
    """The one credential of the request; two could mean two callers, and proxies differ on which they look at."""
    values = request.headers.getlist("authorization")
    scheme, _, credential = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not credential:
        raise Unauthorized
    return credential.strip()
