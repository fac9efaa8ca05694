"""Loss terms a job may combine. Each parameter is declared once, here: the API, the forms and the worker read this."""

from typing import Annotated, get_args

from pydantic import Field

from service.spec.losses.base import LossKind, LossTerm
from service.spec.losses.likelihood import AlphaPoLoss, CpoForm, CpoLoss, OrpoLoss, SftLoss, SimpoLoss
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
from service.spec.losses.rewards import ApoDownLoss, ApoZeroLoss, BcoPairLoss, KtoPairLoss, NcaPairLoss, SppoHardLoss

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
    | SimpoLoss
    | AlphaPoLoss
    | CpoLoss
    | OrpoLoss
    | SftLoss,
    Field(discriminator="type"),
]

DECLARATIONS: dict[LossKind, type[LossTerm]] = {
    declared.model_fields["type"].default: declared for declared in get_args(get_args(Loss)[0])
}

__all__ = [
    "DECLARATIONS",
    "AlphaPoLoss",
    "ApoDownLoss",
    "ApoZeroLoss",
    "BcoPairLoss",
    "CpoForm",
    "CpoLoss",
    "DiscoPopLoss",
    "Divergence",
    "ExoPairLoss",
    "HingeLoss",
    "IpoForm",
    "IpoLoss",
    "KtoPairLoss",
    "Loss",
    "LossKind",
    "LossTerm",
    "MarginLoss",
    "NcaPairLoss",
    "OrpoLoss",
    "RobustLoss",
    "SftLoss",
    "SigmoidLoss",
    "SigmoidNormLoss",
    "SimpoLoss",
    "SppoHardLoss",
]
