"""Who asks is settled before anything else of a request is looked at: strangers get no byte of a body read.

A key in `Authorization` counts before a session's cookie. A browser sends a cookie whoever made it ask, so with a
cookie a request must come from our own pages: it must not say that it is another site's (`Sec-Fetch-Site`), and one
that may change something must carry a header that no other origin can add, since CORS allows none. The cookie is
SameSite=Strict besides; that alone would let other ports of this host in.
"""

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import database_error, error_response
from service.db.session import Database
from service.errors import CrossSite, ServiceError, Unauthorized
from service.jobs.tokens import is_token_of
from service.keys import sessions
from service.keys.service import Caller, verify_key
from service.settings import Settings

SESSION_HEADER = "x-plumbline-session"
_PROJECTS = "/v1/"
_ATTEMPTS = "/internal/attempts/"


def is_secure(request: Request) -> bool:
    """Whether the session's cookie is only for HTTPS: over plain HTTP, as on loopback, a browser would keep no such
    one."""
    settings: Settings = request.app.state.settings
    return request.url.scheme == "https" or settings.environment == "production"


def session_cookie(request: Request) -> str:
    """Its name. Where it is only for HTTPS the prefix has browsers take it from this very host alone, so that no other
    host of the domain can sign somebody in (RFC 6265bis, 4.1.3.2)."""
    return "__Host-plumbline_session" if is_secure(request) else "plumbline_session"


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
    except (DBAPIError, PoolTimeout) as error:
        return await database_error(request, error)
    return None


async def _caller(request: Request) -> Caller:
    database: Database = request.app.state.database
    token = request.cookies.get(session_cookie(request))
    if token and "authorization" not in request.headers:
        _refuse_other_sites(request)
        async with database.reading(brief=True) as session:
            return await sessions.verify(session, token)
    return await verify_key(database, _bearer(request))


def _refuse_other_sites(request: Request) -> None:
    ours = request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
    changes = request.method not in ("GET", "HEAD", "OPTIONS")
    if not ours or (changes and request.headers.get(SESSION_HEADER) != "1"):
        raise CrossSite


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
