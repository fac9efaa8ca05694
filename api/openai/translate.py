"""From a request of OpenAI's package to an AlignmentJob."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from api.openai.request import FineTuningRequest, Hyperparameters
from service.errors import InvalidRequest
from service.spec import AlignmentJob
from service.spec.shapes import DataShape
from service.validation import explain

_HYPERPARAMETERS = {
    "batch_size": "training.batch_size",
    "n_epochs": "training.epochs",
    "learning_rate_multiplier": "training.learning_rate",
    "beta": "losses.0.beta",
}
_LOSSES = {"supervised": "sft", "dpo": "sigmoid"}


@dataclass(frozen=True)
class Names:
    """What the fields of the AlignmentJob are called in the request that it comes from."""

    given: dict[str, str]  # path in the AlignmentJob -> name in the request
    plumbline: dict[str, Any]

    def of(self, field: str) -> str:
        """`training.batch_size` -> `method.dpo.hyperparameters.batch_size`; what has no other name is ours."""
        if not field or _value(self.plumbline, field.split(".")) is not None:
            return field and f"plumbline.{field}"
        parts = field.split(".")
        for length in range(len(parts), 0, -1):
            if name := self.given.get(".".join(parts[:length])):
                return name
        return f"plumbline.{field}"

    def told(self, error: InvalidRequest) -> InvalidRequest:
        """`error`, with the fields as the request calls them."""
        detail, extra = error.detail, dict(error.extra)
        if extra.get("field"):
            extra["field"] = self.of(extra["field"])
        if "errors" in extra:
            extra["errors"] = [one | {"field": self.of(one["field"])} for one in extra["errors"]]
            for before, after in zip(error.extra["errors"], extra["errors"], strict=True):
                if before["field"]:
                    detail = detail.replace(f"{before['field']}: ", f"{after['field']}: ", 1)
        return type(error)(detail, **extra)


def alignment_job(request: FineTuningRequest) -> tuple[AlignmentJob, Names]:
    """The job that `request` asks for, and how to speak of it.

    Raises InvalidRequest, in the request's own terms, for what an AlignmentJob cannot be and for a field of `plumbline`
    that contradicts another option.
    """
    ours = _spelled_out(request.plumbline or {})
    body, names = _given(request, ours)
    for path, value in _leaves(body):
        other = _value(ours, path)
        if other is not None and other != value:
            field = ".".join(path)
            _refuse_conflict(f"plumbline.{field}", names.given.get(field, field))
    body = _merged(body, ours)
    job = _validated(body, names)
    _check_method(request, job)
    if (multiplier := _hyperparameters(request)[1].learning_rate_multiplier) is not None:
        if job.training.learning_rate is not None:
            _refuse_conflict("plumbline.training.learning_rate", names.given["training.learning_rate"])
        rate = {"training": {"learning_rate": job.learning_rate * multiplier}}
        job = _validated(_merged(body, rate), names)
    return job, names


def _given(request: FineTuningRequest, ours: dict[str, Any]) -> tuple[dict[str, Any], Names]:
    """The body of an AlignmentJob with what the package's own fields say, and nothing that they leave open."""
    body: dict[str, Any] = {"model": {"source": request.model}, "data": {"train": request.training_file}}
    given = {"model": "model", "data.train": "training_file"}
    training: dict[str, Any] = {}
    where, options = _hyperparameters(request)
    for name, path in _HYPERPARAMETERS.items():
        if (value := getattr(options, name, None)) is not None:
            given[path] = f"{where}.{name}"
            if name in ("batch_size", "n_epochs"):
                training[path.removeprefix("training.")] = value
    if request.seed is not None:
        training["seed"], given["training.seed"] = request.seed, "seed"
    if training:
        body["training"] = training
    if request.suffix is not None:
        body["name"], given["name"] = request.suffix, "suffix"
    if request.validation_file is not None:
        body["data"]["validation"], given["data.validation"] = request.validation_file, "validation_file"
        for name in ("held_out_fraction", "held_out_max"):
            if _value(ours, ("evaluation", name)) is not None:
                _refuse_conflict(f"plumbline.evaluation.{name}", "validation_file")
    if request.metadata:
        body["metadata"], given["metadata"] = request.metadata, "metadata"

    beta = getattr(options, "beta", None)
    if "losses" not in ours:
        kind = _LOSSES[request.method.type if request.method else "supervised"]
        body["losses"] = [{"type": kind} | ({"beta": beta} if beta is not None else {})]
    elif beta is not None:
        _refuse_conflict("plumbline.losses", given["losses.0.beta"])
    return body, Names(given, ours)


def _hyperparameters(request: FineTuningRequest) -> tuple[str, Hyperparameters]:
    """Where in the request they stand, and what they are."""
    if request.method and request.method.hyperparameters:
        return f"method.{request.method.type}.hyperparameters", request.method.hyperparameters
    return "hyperparameters", request.hyperparameters or Hyperparameters()


def _spelled_out(ours: dict[str, Any]) -> dict[str, Any]:
    """A bare string stands for a model's source; the two forms must meet in one to be compared."""
    return ours | {"model": {"source": ours["model"]}} if isinstance(ours.get("model"), str) else ours


def _check_method(request: FineTuningRequest, job: AlignmentJob) -> None:
    """A `method` that is given must be what the losses of `plumbline` come to."""
    if request.method and (request.method.type == "supervised") != (job.data_shape is DataShape.ANSWERS):
        _refuse_conflict("plumbline.losses", "method.type")


def _validated(body: dict[str, Any], names: Names) -> AlignmentJob:
    try:
        return AlignmentJob.model_validate(body)
    except ValidationError as error:
        raise names.told(explain(error.errors(), body)) from error


def _refuse_conflict(ours: str, theirs: str) -> None:
    raise InvalidRequest(f"`{ours}` and `{theirs}` contradict each other: give one of them.", field=ours)


def _leaves(body: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in body.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _value(body: Any, path: tuple[str, ...] | list[str]) -> Any:
    """What stands at `path`, where parts may be the places of a list; None if nothing does."""
    for part in path:
        if isinstance(body, list) and part.isdecimal() and int(part) < len(body):
            body = body[int(part)]
        elif isinstance(body, dict):
            body = body.get(part)
        else:
            return None
    return body


def _merged(body: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(body)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
