"""Answers of many rows, written as JSON in one go."""

from pydantic import BaseModel
from starlette.responses import Response


def as_json(answer: BaseModel) -> Response:
    """What FastAPI would answer, but that it would check it once more and make Python objects of it first, which takes
    several times as long. The route declares the model with `response_model`."""
    return Response(answer.model_dump_json(), media_type="application/json")
