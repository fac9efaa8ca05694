"""Losses that look at the chosen and the rejected answer's log-ratio each, not at their difference alone."""

from typing import ClassVar, Literal

from pydantic import Field

from service.spec.losses.base import About, LossKind, ReferenceLoss, ReferenceOptionalLoss

_APO_ZERO = "1 - s(beta C) + s(beta R)"


class NcaPairLoss(ReferenceLoss):
    about: ClassVar[About] = About(
        title="NCA for pairs",
        formula="-log s(beta C) - (log s(-beta C) + log s(-beta R)) / 2",
        paper="https://arxiv.org/abs/2402.05369",
        when_to_use="When the chosen answers' likelihood must not fall: their log-ratio has a finite target above 0.",
    )
    type: Literal[LossKind.NCA_PAIR] = LossKind.NCA_PAIR


class BcoPairLoss(ReferenceLoss):
    about: ClassVar[About] = About(
        title="BCO on pairs",
        formula="-log s(beta C) - log s(-beta R)",
        paper="https://arxiv.org/abs/2404.04656",
        when_to_use="To learn good from bad as a classifier would: chosen answers up, rejected ones down, each alone.",
    )
    type: Literal[LossKind.BCO_PAIR] = LossKind.BCO_PAIR
    reward_baseline: Literal["none"] = Field(
        "none",
        description="What is subtracted from rewards: nothing, as in TRL 1.16. The paper's running mean is not "
        "available yet.",
    )


class SppoHardLoss(ReferenceLoss):
    about: ClassVar[About] = About(
        title="SPPO with hard labels",
        formula="(C - 1/(2 beta))^2 + (R + 1/(2 beta))^2",
        paper="https://arxiv.org/abs/2405.00675",
        when_to_use="For rounds of self-play with freshly sampled pairs: log-ratios are driven to +-1/(2 beta) and no "
        "further. Sums of log-probs make it large for long answers.",
    )
    type: Literal[LossKind.SPPO_HARD] = LossKind.SPPO_HARD


class ApoZeroLoss(ReferenceOptionalLoss):
    about: ClassVar[About] = About(
        title="APO-zero",
        formula=_APO_ZERO,
        paper="https://arxiv.org/abs/2408.06266",
        when_to_use="When the chosen answers are better than what the model says now: they become likelier, the "
        "rejected less likely.",
    )
    type: Literal[LossKind.APO_ZERO] = LossKind.APO_ZERO


class ApoDownLoss(ReferenceLoss):
    about: ClassVar[About] = About(
        title="APO-down",
        formula="s(beta C) + 1 - s(beta d)",
        paper="https://arxiv.org/abs/2408.06266",
        when_to_use="When the model is already better than the chosen answers: both become less likely, the rejected "
        "more so.",
    )
    type: Literal[LossKind.APO_DOWN] = LossKind.APO_DOWN


class KtoPairLoss(ReferenceOptionalLoss):
    about: ClassVar[About] = About(
        title="Paired KTO without its KL term, as in Twinkle: the same function as apo_zero",
        formula=_APO_ZERO,
        paper="https://arxiv.org/abs/2402.01306",
        when_to_use="To repeat a Twinkle run. Otherwise take apo_zero, which it equals.",
    )
    type: Literal[LossKind.KTO_PAIR] = LossKind.KTO_PAIR
