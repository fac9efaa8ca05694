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
    AOT = "aot"
    AOT_UNPAIRED = "aot_unpaired"
    SIMPO = "simpo"
    ALPHAPO = "alphapo"
    CPO = "cpo"
    ORPO = "orpo"
    PLACKETT_LUCE = "plackett_luce"
    KTO = "kto"
    APO_ZERO_UNPAIRED = "apo_zero_unpaired"
    BCO = "bco"
    SFT = "sft"

    @property
    def data_shape(self) -> DataShape:
        return _OTHER_SHAPES.get(self, DataShape.PAIRS)


_OTHER_SHAPES = {
    LossKind.PLACKETT_LUCE: DataShape.RANKED,
    LossKind.KTO: DataShape.UNPAIRED,
    LossKind.APO_ZERO_UNPAIRED: DataShape.UNPAIRED,
    LossKind.BCO: DataShape.UNPAIRED,
    LossKind.SFT: DataShape.ANSWERS,
}


@dataclass(frozen=True)
class About:
    """What the catalogue tells of a loss, in the notation of `service.spec.catalogue.NOTATION`."""

    title: str
    formula: str
    paper: str | None  # URL
    when_to_use: str


class LossTerm(SpecModel):
    about: ClassVar[About]
    uses_margin: ClassVar[bool] = False  # whether it reads the rows' `margin`
    uses_weight: ClassVar[bool] = True  # whether a row's `weight` has a meaning for it

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

    @property
    def couples_rows(self) -> bool:
        """Whether the loss of one row depends on the other rows of the optimizer step."""
        return False


Beta = Annotated[
    float,
    Field(
        ge=1e-6,
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

ReferenceFree = Annotated[
    bool,
    Field(
        description="Take the policy's log-probs in place of log-ratios, as if the reference found all answers "
        "equally likely. No reference pass is made."
    ),
]


class ReferenceLoss(LossTerm):
    """A loss of log-ratios between policy and reference."""

    beta: Beta = 0.1

    @property
    def needs_reference(self) -> bool:
        return True


class PairRatioLoss(ReferenceLoss):
    """... of the two answers of a pair."""

    ld_alpha: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Length desensitisation (LD-DPO, arXiv 2409.06411): tokens of an answer beyond the length of the "
        "shorter one count this much, in policy and reference alike. Left out: all count fully, as with 1.",
    )


class WeightedRatioLoss(PairRatioLoss):
    """... whose pairs can be weighted by how likely the policy would be to write them."""

    wpo: bool = Field(
        False,
        description="Weight each pair by exp(mean over tokens of log p - log sum p^2) of both its answers under the "
        "policy, without a gradient (WPO, arXiv 2406.11827; TRL's use_weighting). The weights are not clamped.",
    )


class ReferenceOptionalLoss(WeightedRatioLoss):
    reference_free: ReferenceFree = False

    @property
    def needs_reference(self) -> bool:
        return not self.reference_free


class RewardBaseline(StrEnum):
    NONE = "none"
    RUNNING_MEAN = "running_mean"  # of the rewards of all rows so far; it is kept in checkpoints
