"""Losses of single answers that are desirable or not: rows of prompt, completion and label."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from service.spec.losses.base import About, LossKind, ReferenceLoss, RewardBaseline

SideWeight = Annotated[float, Field(ge=0, le=1000)]


class LabelledLoss(ReferenceLoss):
    desirable_weight: SideWeight = Field(
        1.0, description="Factor w_d of desirable answers. The paper keeps w_d n_d between 1 and 4/3 of w_u n_u."
    )
    undesirable_weight: SideWeight = Field(1.0, description="Factor w_u of undesirable answers.")

    @model_validator(mode="after")
    def _learns_something(self) -> "LabelledLoss":
        if not self.desirable_weight and not self.undesirable_weight:
            raise ValueError("with `desirable_weight` and `undesirable_weight` both 0 nothing would be learnt")
        return self


class KtoLoss(LabelledLoss):
    about: ClassVar[About] = About(
        title="KTO",
        formula="desirable: w_d (1 - s(beta (A - kl))); undesirable: w_u (1 - s(beta (kl - A))); "
        "kl = max(0, mean of log p - log q over answers to other prompts)",
        paper="https://arxiv.org/abs/2402.01306",
        when_to_use="For thumbs up and down without pairs. kl is estimated on answers paired with another row's "
        "prompt, over the whole optimizer step: take a batch_size of 16 or more.",
    )
    type: Literal[LossKind.KTO] = LossKind.KTO

    @property
    def couples_rows(self) -> bool:
        return True


class ApoZeroUnpairedLoss(LabelledLoss):
    about: ClassVar[About] = About(
        title="APO-zero on single answers",
        formula="desirable: w_d (1 - s(beta A)); undesirable: w_u s(beta A)",
        paper="https://arxiv.org/abs/2408.06266",
        when_to_use="Thumbs up and down where the desirable answers are better than what the model says now. KTO "
        "without its kl: each row stands alone.",
    )
    type: Literal[LossKind.APO_ZERO_UNPAIRED] = LossKind.APO_ZERO_UNPAIRED


class BcoLoss(ReferenceLoss):
    about: ClassVar[About] = About(
        title="BCO",
        formula="desirable: -log s(beta A - delta); undesirable: -log s(delta - beta A); delta the reward baseline",
        paper="https://arxiv.org/abs/2404.04656",
        when_to_use="Thumbs up and down, learnt as a classifier would. The running mean keeps both sides apart when "
        "all rewards drift the same way.",
    )
    type: Literal[LossKind.BCO] = LossKind.BCO
    reward_baseline: RewardBaseline = Field(
        RewardBaseline.RUNNING_MEAN,
        description="delta, subtracted from rewards: `running_mean` over all rewards so far, as in the paper, or "
        "`none`.",
    )

    @property
    def couples_rows(self) -> bool:
        return self.reward_baseline is RewardBaseline.RUNNING_MEAN
