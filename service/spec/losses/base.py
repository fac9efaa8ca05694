"""What all loss terms share: their kinds, what is said about each, and the options that several have."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from service.spec.base import SpecModel
from service.spec.shapes import DataShape


class LossKind(StrEnum):
    SIGMOID = "sigmoid"
    HINGE = "hinge"
    IPO = "ipo"
    EXO_PAIR = "exo_pair"
    ROBUST = "robust"
    DISCOPOP = "discopop"
    SIGMOID_NORM = "sigmoid_norm"
    NCA_PAIR = "nca_pair"
    BCO_PAIR = "bco_pair"
    SPPO_HARD = "sppo_hard"
    APO_ZERO = "apo_zero"
    APO_DOWN = "apo_down"
    KTO_PAIR = "kto_pair"
    SIMPO = "simpo"
    ALPHAPO = "alphapo"
    CPO = "cpo"
    ORPO = "orpo"
    SFT = "sft"

    @property
    def data_shape(self) -> DataShape:
        return DataShape.ANSWERS if self is LossKind.SFT else DataShape.PAIRS

    @property
    def needs_rejected(self) -> bool:
        """Whether the loss reads rejected answers, so that rows must be pairs."""
        return self.data_shape is DataShape.PAIRS


@dataclass(frozen=True)
class About:
    """What the catalogue tells of a loss, in the notation of `service.spec.catalogue.NOTATION`."""

    title: str
    formula: str
    paper: str | None  # URL
    when_to_use: str


class LossTerm(SpecModel):
    about: ClassVar[About]

    weight: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="Factor of this term in the total. Weights are used as given, never normalised.",
    )

    @property
    def needs_reference(self) -> bool:
        """Whether this term, with its options, reads the reference model's log-probs."""
        return False


Beta = Annotated[
    float,
    Field(
        gt=0,
        le=100,
        description="Strength of the pull towards the reference, dimensionless; smaller lets the policy move further.",
    ),
]

LabelSmoothing = Annotated[
    float,
    Field(
        ge=0,
        lt=0.5,
        description="Assumed share e of flipped labels: (1-e) of the loss, and e of the loss with the answers swapped "
        "(conservative DPO, Mitchell 2023).",
    ),
]


class ReferenceLoss(LossTerm):
    """A loss of log-ratios between policy and reference."""

    beta: Beta = 0.1

    @property
    def needs_reference(self) -> bool:
        return True


class ReferenceOptionalLoss(ReferenceLoss):
    reference_free: bool = Field(
        False,
        description="Take the policy's log-probs in place of log-ratios, as if the reference found all answers "
        "equally likely. No reference pass is made.",
    )

    @property
    def needs_reference(self) -> bool:
        return not self.reference_free
