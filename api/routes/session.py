"""A browser signs in with a key, and is known by a cookie from then on."""

from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from api.authentication import is_secure, session_cookie
from api.deps import CallerDep, DatabaseDep, SettingsDep
from api.problems import problems
from service.errors import InvalidRequest
from service.keys import sessions
from service.keys.roles import Role
from service.keys.service import Caller

router = APIRouter(prefix="/session", tags=["projects"])

_COOKIE: dict[int | str, dict[str, Any]] = {
    201: {"headers": {"Set-Cookie": {"schema": {"type": "string"}, "description": "HttpOnly, SameSite=Strict."}}}
}


class SessionView(BaseModel):
    """Who asks."""

    object: Literal["session"] = "session"
    project_id: str
    key_id: str
    name: str = Field(description="The user, or the key's name if it belongs to no user.")
    role: Role = Field(description="What may be done: the lower of the key's and the user's.")

    @classmethod
    def of(cls, caller: Caller) -> "SessionView":
        return cls(project_id=caller.project_id, key_id=caller.key_id, name=caller.name, role=caller.role)


class SessionStarted(SessionView):
    expires_at: datetime


@router.post("", status_code=201, responses=_COOKIE | problems(InvalidRequest))
async def sign_in(
    request: Request, response: Response, caller: CallerDep, database: DatabaseDep, settings: SettingsDep
) -> SessionStarted:
    """For browsers: with a key in `Authorization`, start a session that stands for the key, until it ends or the key
    does. With the cookie, a request that changes something must have the header `X-Plumbline-Session: 1`."""
    if "authorization" not in request.headers:
        raise InvalidRequest("A session is started with a key: send 'Authorization: Bearer KEY'.")
    async with database.transaction() as session:
        token, expires_at = await sessions.start(session, caller, settings.session_lifetime_s)
    response.set_cookie(
        session_cookie(request),
        token,
        max_age=int(settings.session_lifetime_s),
        secure=is_secure(request),
        httponly=True,
        samesite="strict",
    )
    return SessionStarted(**SessionView.of(caller).model_dump(), expires_at=expires_at)


@router.get("")
async def get_session(caller: CallerDep) -> SessionView:
    """Who the key, or the session, belongs to, and what it may do."""
    return SessionView.of(caller)


@router.delete("", status_code=204)
async def sign_out(request: Request, response: Response, _caller: CallerDep, database: DatabaseDep) -> None:
    """End the session of the cookie. The key stays as it is."""
    if token := request.cookies.get(session_cookie(request)):
        async with database.transaction() as session:
            await sessions.end(session, token)
    response.delete_cookie(session_cookie(request), secure=is_secure(request), httponly=True, samesite="strict")
