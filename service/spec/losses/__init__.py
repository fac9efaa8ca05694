"""Loss terms a job may combine. Each parameter is declared once, here: the API, the forms and the worker read this."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, get_args

from pydantic import Field

from service.spec.losses.base import LossKind, LossTerm, PairRatioLoss, RewardBaseline, WeightedRatioLoss
from service.spec.losses.likelihood import AlphaPoLoss, CpoForm, CpoLoss, NllTokens, OrpoLoss, SftLoss, SimpoLoss
from service.spec.losses.margin import (
    DiscoPopLoss,
    Divergence,
    ExoPairLoss,
    HingeLoss,
    IpoForm,
    IpoLoss,
    MarginLoss,
    RobustLoss,
    SigmoidLoss,
    SigmoidNormLoss,
)
from service.spec.losses.rewards import (
    AotLoss,
    AotUnpairedLoss,
    ApoDownLoss,
    ApoZeroLoss,
    BcoPairLoss,
    KtoPairLoss,
    NcaPairLoss,
    PlackettLuceLoss,
    SppoHardLoss,
)
from service.spec.losses.unpaired import ApoZeroUnpairedLoss, BcoLoss, KtoLoss

Loss = Annotated[
    SigmoidLoss
    | HingeLoss
    | IpoLoss
    | ExoPairLoss
    | RobustLoss
    | DiscoPopLoss
    | SigmoidNormLoss
    | NcaPairLoss
    | BcoPairLoss
    | SppoHardLoss
    | ApoZeroLoss
    | ApoDownLoss
    | KtoPairLoss
    | AotLoss
    | AotUnpairedLoss
    | SimpoLoss
    | AlphaPoLoss
    | CpoLoss
    | OrpoLoss
    | PlackettLuceLoss
    | KtoLoss
    | ApoZeroUnpairedLoss
    | BcoLoss
    | SftLoss,
    Field(discriminator="type"),
]

DECLARATIONS: dict[LossKind, type[LossTerm]] = {
    declared.model_fields["type"].default: declared for declared in get_args(get_args(Loss)[0])
}


def term_names(terms: Sequence[Loss]) -> list[str]:
    """A name for each term, as metrics have it: its kind, and with a number from the second one of a kind on."""
    seen: Counter[str] = Counter()
    names = []
    for term in terms:
        kind = str(term.type)
        seen[kind] += 1
        names.append(kind if seen[kind] == 1 else f"{kind}_{seen[kind]}")
    return names


__all__ = [
    "DECLARATIONS",
    "AlphaPoLoss",
    "AotLoss",
    "AotUnpairedLoss",
    "ApoDownLoss",
    "ApoZeroLoss",
    "ApoZeroUnpairedLoss",
    "BcoLoss",
    "BcoPairLoss",
    "CpoForm",
    "CpoLoss",
    "DiscoPopLoss",
    "Divergence",
    "ExoPairLoss",
    "HingeLoss",
    "IpoForm",
    "IpoLoss",
    "KtoLoss",
    "KtoPairLoss",
    "Loss",
    "LossKind",
    "LossTerm",
    "MarginLoss",
    "NcaPairLoss",
    "NllTokens",
    "OrpoLoss",
    "PairRatioLoss",
    "PlackettLuceLoss",
    "RewardBaseline",
    "RobustLoss",
    "SftLoss",
    "SigmoidLoss",
    "SigmoidNormLoss",
    "SimpoLoss",
    "SppoHardLoss",
    "WeightedRatioLoss",
    "term_names",
]
