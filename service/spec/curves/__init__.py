"""Loss and gradient against the log-ratio margin: points for a plot of terms with the options that they have."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from service.spec.base import SpecModel
from service.spec.curves.dual import Dual
from service.spec.curves.terms import LOGP, Answers, loss_of
from service.spec.losses import Loss

SETTING = (
    "A step of one pair, or of one desirable and one undesirable answer, of weight 1 and margin 0. The answers have 10 "
    "tokens and log-prob -30 under the reference, -30 + d/2 (chosen) and -30 - d/2 (rejected) under the policy. "
    "`gradient` is the derivative by d. Since both answers are of one length `ld_alpha` changes nothing here, and the "
    "weights of `wpo` are taken as 1."
)
MARGINS = tuple(float(d) for d in range(-40, 41, 2))


class Curve(SpecModel):
    """One value for each margin."""

    loss: list[float]
    gradient: list[float]


class CurvesRequest(SpecModel):
    losses: Annotated[list[Loss], Field(min_length=1, max_length=8, description="Terms, as a job has them.")]
    margins: Annotated[
        tuple[Annotated[float, Field(ge=-59, le=59)], ...],
        Field(min_length=1, max_length=500, description="The log-ratio margins d to evaluate at; nats."),
    ] = MARGINS


class Curves(SpecModel):
    setting: str = SETTING
    margins: list[float]
    terms: list[Curve] = Field(description="Of each term, times its weight, in the order of the request.")
    total: Curve = Field(description="Their sum: what training lowers.")


def curve(term: Loss, margins: Sequence[float] = MARGINS) -> Curve:
    """The term times its weight, and its derivative by the margin, at each margin. All values are finite."""
    return _curve([_at(term, d) for d in margins])


def curves(request: CurvesRequest) -> Curves:
    terms = [[_at(term, d) for d in request.margins] for term in request.losses]
    total = [sum(points, Dual(0.0)) for points in zip(*terms, strict=True)]
    return Curves(margins=list(request.margins), terms=[_curve(term) for term in terms], total=_curve(total))


def _at(term: Loss, d: float) -> Dual:
    half = Dual(d / 2, 0.5)
    return loss_of(term, Answers(LOGP + half, LOGP - half))


def _curve(points: Sequence[Dual]) -> Curve:
    return Curve(loss=[_digits(one.value) for one in points], gradient=[_digits(one.slope) for one in points])


def _digits(value: float) -> float:
    return float(f"{value:.6g}")
