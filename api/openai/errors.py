"""Problems in OpenAI's form. The one place where they are translated."""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from service.errors import ServiceError

_OWN_PATHS = ("/v1/fine_tuning/", "/v1/models", "/v1/uploads", "/v1/chat/", "/v1/completions")
_NATIVE = re.compile(r"/v1/models/[^/]+/(promote|rollback|promotions)")
# RFC 9457's members, and those that have a place of their own in OpenAI's object; the request's ID is in the header
# where their packages look for it.
_TRANSLATED = frozenset({"type", "title", "status", "detail", "code", "field", "request_id"})


class ErrorObject(BaseModel):
    """Further members depend on `code`: `errors`, `rows`..."""

    model_config = ConfigDict(extra="allow")

    message: str = Field(description="What happened and what to do.")
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(description="The field of the request that it is about.")
    code: str = Field(description="Stable identifier, as in the native API.", examples=["not_found"])


class ErrorBody(BaseModel):
    error: ErrorObject


def errors(*kinds: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route: what it may answer, by status; and the form of all other errors."""
    documented: dict[int | str, dict[str, Any]] = {
        "default": {"model": ErrorBody, "description": "Any other error, in the same form"}
    }
    for kind in kinds:
        answer = documented.setdefault(_status(kind.status), {"model": ErrorBody, "description": ""})
        answer["description"] += f"{'; or ' if answer['description'] else ''}{kind.title}"
    return documented


def is_package(request: Request) -> bool:
    """Whether one of OpenAI's packages asks: they say in which language they are written."""
    return "x-stainless-lang" in request.headers


def is_expected(request: Request) -> bool:
    """Whether whoever asks expects errors in OpenAI's form."""
    path = request.url.path
    if _NATIVE.fullmatch(path):
        return False
    return path.startswith(_OWN_PATHS) or is_package(request)  # who also asks for what is not there: /v1/embeddings...


def error_response(problem: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """The response that says the same as `problem` (RFC 9457, of `api.problems`).

    What is wrong with a request is 400 here and 422 in the native API: scripts catch the package's BadRequestError.
    """
    status = _status(problem["status"])
    headers = dict(headers or {})
    if status == HTTPStatus.CONFLICT:  # which the package would try again, and nothing here changes by itself
        headers["x-should-retry"] = "false"
    body = json.dumps({"error": error_object(problem)}, ensure_ascii=False).encode(errors="replace")
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def error_object(problem: dict[str, Any]) -> dict[str, Any]:
    """{message, type, param, code} and the problem's further members, such as `rows` and `errors`."""
    further = {name: value for name, value in problem.items() if name not in _TRANSLATED}
    fields = [error["field"] for error in problem.get("errors", ())]
    return further | {
        "message": problem["detail"],
        "type": _type(problem["status"]),
        "param": problem.get("field") or next(filter(None, fields), None),
        "code": problem["code"],
    }


def _status(status: int) -> int:
    return HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else status


def _type(status: int) -> str:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "server_error"
    return "rate_limit_error" if status == HTTPStatus.TOO_MANY_REQUESTS else "invalid_request_error"
