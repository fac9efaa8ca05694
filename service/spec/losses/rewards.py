"""Losses that look at the chosen and the rejected answer's log-ratio each, or at those of several answers."""

from typing import ClassVar, Literal

from pydantic import Field

from service.spec.losses.base import (
    About,
    LabelSmoothing,
    LossKind,
    PairRatioLoss,
    ReferenceFree,
    ReferenceLoss,
    ReferenceOptionalLoss,
    RewardBaseline,
    WeightedRatioLoss,
)

_APO_ZERO = "1 - s(beta C) + s(beta R)"


class NcaPairLoss(WeightedRatioLoss):
    about: ClassVar[About] = About(
        title="NCA for pairs",
        formula="-log s(beta C) - (log s(-beta C) + log s(-beta R)) / 2",
        paper="https://arxiv.org/abs/2402.05369",
        when_to_use="When the chosen answers' likelihood must not fall: their log-ratio has a finite target above 0.",
    )
    type: Literal[LossKind.NCA_PAIR] = LossKind.NCA_PAIR


class BcoPairLoss(WeightedRatioLoss):
    about: ClassVar[About] = About(
        title="BCO on pairs",
        formula="-log s(beta C - delta) - log s(delta - beta R), delta the reward baseline",
        paper="https://arxiv.org/abs/2404.04656",
        when_to_use="To learn good from bad as a classifier would: chosen answers up, rejected ones down, each alone.",
    )
    type: Literal[LossKind.BCO_PAIR] = LossKind.BCO_PAIR
    reward_baseline: RewardBaseline = Field(
        RewardBaseline.NONE,
        description="delta, subtracted from rewards: `none`, as in TRL 1.16, or the paper's `running_mean` over all "
        "rewards so far.",
    )

    @property
    def couples_rows(self) -> bool:
        return self.reward_baseline is RewardBaseline.RUNNING_MEAN


class SppoHardLoss(WeightedRatioLoss):
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


class ApoDownLoss(WeightedRatioLoss):
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


class _AotLoss(PairRatioLoss):
    uses_weight: ClassVar[bool] = False  # quantiles are matched one to one

    label_smoothing: LabelSmoothing = 0.0

    @property
    def couples_rows(self) -> bool:
        return True


class AotLoss(_AotLoss):
    about: ClassVar[About] = About(
        title="AOT, paired: distributional preference by optimal transport",
        formula="z = sort(log p(chosen) - log p(rejected)) - sort(log q(chosen) - log q(rejected)) over the step; "
        "-(1-e) log s(beta z) - e log s(-beta z)",
        paper="https://arxiv.org/abs/2406.05882",
        when_to_use="When the whole distribution of margins should beat the reference's, not each pair its own. "
        "Quantiles are those of one optimizer step: take a batch_size of 32 or more.",
    )
    type: Literal[LossKind.AOT] = LossKind.AOT


class AotUnpairedLoss(_AotLoss):
    about: ClassVar[About] = About(
        title="AOT, unpaired",
        formula="z = sort(C) - sort(R) over the step; -(1-e) log s(beta z) - e log s(-beta z)",
        paper="https://arxiv.org/abs/2406.05882",
        when_to_use="When chosen answers as a whole should beat rejected ones as a whole. Before version 1, TRL "
        "called it aot_pair.",
    )
    type: Literal[LossKind.AOT_UNPAIRED] = LossKind.AOT_UNPAIRED


class PlackettLuceLoss(ReferenceLoss):
    about: ClassVar[About] = About(
        title="DPO on rankings (Plackett-Luce)",
        formula="-sum over j of log(exp(beta r_j) / sum over l >= j of exp(beta r_l)), r_j the log-ratio of the j-th "
        "best answer",
        paper="https://arxiv.org/abs/2305.18290",
        when_to_use="When several answers to a prompt are ranked: all orders at once, the prompt read once. With two "
        "answers it is sigmoid.",
    )
    type: Literal[LossKind.PLACKETT_LUCE] = LossKind.PLACKETT_LUCE
    reference_free: ReferenceFree = False

    @property
    def needs_reference(self) -> bool:
        return not self.reference_free
