"""Errors as RFC 9457 problem details: one shape for everything that goes wrong, ours or the framework's."""

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

from api.openai import errors as openai
from api.telemetry import HEADER, request_id
from service.db.trouble import does_not_answer
from service.errors import (
    InvalidRequest,
    ModelWaking,
    RateLimited,
    ServiceError,
    TooManyStreams,
    Unauthorized,
    Unavailable,
)
from service.spec.secrets import redacted
from service.validation import explain

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class ProblemDetails(BaseModel):
    """What went wrong (RFC 9457). Further members depend on `code`: `errors`, `rows`, `field`, `expected_seq`..."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:plumbline:problem:not_found"])
    title: str = Field(examples=["There is no such thing here"])
    status: int = Field(examples=[404])
    detail: str = Field(description="What happened and what to do.", examples=["There is no such job among yours."])
    code: str = Field(description="Stable identifier.", examples=["not_found"])
    request_id: str | None = Field(
        None,
        description="As in the header X-Request-Id and in the server's log.",
        examples=["req-019316f0a6b2f3c1d4e5a"],
    )


def problem(error: ServiceError) -> dict[str, Any]:
    return problem_of(error.status, error.code, error.title, error.detail) | error.extra


def problem_of(status: int, code: str, title: str, detail: str) -> dict[str, Any]:
    return {
        "type": f"urn:plumbline:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
    }


def problem_response(request: Request, content: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """In the form that the one who asks expects; a secret that was sent in the wrong place is not sent back."""
    request.state.problem_code = content["code"]
    content = redacted(content)
    if id := request_id(request.scope):
        content |= {"request_id": id}
        headers = {**(headers or {}), HEADER: id}  # no middleware sees the answer to an unexpected error
    if openai.is_expected(request):
        return openai.error_response(content, headers)
    # What a client sent may be echoed, so this must be able to say anything: lone surrogates as "?".
    body = json.dumps(content, ensure_ascii=False).encode(errors="replace")
    return Response(body, status_code=content["status"], headers=headers, media_type=MEDIA_TYPE)


def error_response(request: Request, error: ServiceError) -> Response:
    headers = {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "2"
    if isinstance(error, RateLimited | ModelWaking):
        headers["Retry-After"] = str(error.extra["retry_after_s"])
    if isinstance(error, TooManyStreams):
        headers["Retry-After"] = "10"
    return problem_response(request, problem(error), headers)


def problems(*errors: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route: what it may answer, by status, with an example for each code."""
    documented: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}, "examples": {}}}
        answer = documented.setdefault(error.status, {"description": "", "content": content})
        answer["description"] += f"{'; or ' if answer['description'] else ''}{error.title}"
        answer["content"][MEDIA_TYPE]["examples"][error.code] = {
            "value": problem_of(error.status, error.code, error.title, "What happened and what to do.")
        }
    return documented


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(DBAPIError, database_error)
    app.add_exception_handler(PoolTimeout, database_error)
    app.add_exception_handler(Exception, _our_bug)


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return error_response(request, error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(request, explain(error.errors(), error.body))


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: an unknown path, a wrong method, a body that its JSON reader cannot take."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.BAD_REQUEST:
        return error_response(
            request,
            InvalidRequest(
                "The body cannot be read as JSON: it is nested too deep, has too long a number or is not UTF-8."
            ),
        )
    status = HTTPStatus(error.status_code)
    detail = {
        HTTPStatus.NOT_FOUND: f"There is nothing at {request.url.path}. /docs lists what there is.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.url.path} does not take {request.method}. /docs lists what it takes.",
    }.get(status, error.detail)
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_at(request))
    return problem_response(request, problem_of(status, status.name.lower(), status.phrase, detail), headers)


def _methods_at(request: Request) -> list[str]:
    """All of the path's; Starlette names those of the first route alone."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    found = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in found for method in route.methods or ()})


async def database_error(request: Request, error: Exception) -> Response:
    """Raises the error itself if it does not come from a database in trouble: then it is our bug."""
    assert isinstance(error, DBAPIError | PoolTimeout)
    if not does_not_answer(error):
        raise error
    log.error("the database does not answer", exc_info=error)
    return error_response(
        request, Unavailable("The database does not answer, or lacks its `plumbline db upgrade`: try again shortly.")
    )


async def _our_bug(request: Request, _error: Exception) -> Response:
    """Starlette logs the error with its traceback; the client learns nothing of our insides."""
    return error_response(
        request, ServiceError("The request failed on our side; the server's log says why. Try again.")
    )
