"""Loss terms a job may combine. Each parameter is declared once, here: the API, the forms and the worker read this."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from service.spec.base import SpecModel


class LossKind(StrEnum):
    SIGMOID = "sigmoid"
    SFT = "sft"

    @property
    def needs_reference(self) -> bool:
        """Whether the loss reads the reference model's log-probs."""
        return self is LossKind.SIGMOID

    @property
    def needs_rejected(self) -> bool:
        """Whether the loss reads rejected answers, so that rows must be pairs."""
        return self is LossKind.SIGMOID


class LossTerm(SpecModel):
    weight: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="Factor of this term in the total. Weights are used as given, never normalised.",
    )


class SigmoidLoss(LossTerm):
    """DPO: -log s(beta d), d the policy's log-ratio margin over the reference (Rafailov et al., arXiv 2305.18290)."""

    type: Literal[LossKind.SIGMOID] = LossKind.SIGMOID
    beta: float = Field(
        0.1,
        gt=0,
        le=100,
        description="Strength of the pull towards the reference, dimensionless; smaller lets the policy move further.",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Assumed share of flipped labels (conservative DPO, Mitchell 2023): "
        "-(1-e) log s(beta d) - e log s(-beta d).",
    )


class SftLoss(LossTerm):
    """Negative log-likelihood of the chosen answer's tokens."""

    type: Literal[LossKind.SFT] = LossKind.SFT
    per_sequence: bool = Field(
        False,
        description="False: mean over all counted tokens of the whole optimizer step. True: mean of per-answer means.",
    )


Loss = Annotated[SigmoidLoss | SftLoss, Field(discriminator="type")]
