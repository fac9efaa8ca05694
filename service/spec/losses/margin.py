"""Losses of one number a pair: how much further the policy moved towards the chosen than the rejected answer."""

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from service.spec.losses.base import About, LabelSmoothing, LossKind, ReferenceOptionalLoss


class Divergence(StrEnum):
    """What keeps the policy near the reference. The log-ratio u is replaced by f'(e^u) of the divergence's f."""

    REVERSE_KL = "reverse_kl"  # u
    FORWARD_KL = "forward_kl"  # 1 - exp(-u)
    JS = "js"  # log 2 + log s(u)
    ALPHA = "alpha"  # (exp((k-1) u) - 1) / (k-1)


ALPHA_COEF = 0.5


class MarginLoss(ReferenceOptionalLoss):
    uses_margin: ClassVar[bool] = True

    f_divergence: Divergence = Field(
        Divergence.REVERSE_KL,
        description="Divergence from the reference (f-DPO, arXiv 2309.16240): `reverse_kl` is plain DPO, the others "
        "put f'(e^u) in place of each log-ratio u.",
    )
    f_alpha_divergence_coef: float | None = Field(
        None,
        ge=-10,
        le=10,
        description=f"k of f_divergence `alpha` (only): 1 is reverse_kl, 0 forward_kl. By default {ALPHA_COEF}.",
    )

    @property
    def alpha_coef(self) -> float:
        return ALPHA_COEF if self.f_alpha_divergence_coef is None else self.f_alpha_divergence_coef

    @model_validator(mode="after")
    def _divergence_options_are_used(self) -> "MarginLoss":
        if self.f_alpha_divergence_coef is not None and self.f_divergence is not Divergence.ALPHA:
            raise ValueError(
                f"`f_alpha_divergence_coef` is used by f_divergence 'alpha' only, not by '{self.f_divergence}'"
            )
        if self.reference_free and self.f_divergence is not Divergence.REVERSE_KL:
            raise ValueError("`reference_free` has no divergence from a reference: leave `f_divergence` out")
        return self


class SigmoidLoss(MarginLoss):
    about: ClassVar[About] = About(
        title="DPO; with label_smoothing, conservative DPO",
        formula="-(1-e) log s(beta d) - e log s(-beta d)",
        paper="https://arxiv.org/abs/2305.18290",
        when_to_use="The default: a well-understood start for clean pairs. Watch the log-prob of the chosen answers; "
        "if it falls, add an sft term.",
    )
    type: Literal[LossKind.SIGMOID] = LossKind.SIGMOID
    label_smoothing: LabelSmoothing = 0.0


class HingeLoss(MarginLoss):
    about: ClassVar[About] = About(
        title="Hinge on the margin (SLiC, RSO)",
        formula="max(0, 1 - beta d)",
        paper="https://arxiv.org/abs/2309.06657",
        when_to_use="When pairs that are already well apart should stop pulling: there is no gradient beyond "
        "beta d = 1. torchtune calls it RSOLoss and beta gamma.",
    )
    type: Literal[LossKind.HINGE] = LossKind.HINGE


class IpoForm(StrEnum):
    AVERAGE = "average"  # log-ratios per answer token
    SUM = "sum"


class IpoLoss(MarginLoss):
    about: ClassVar[About] = About(
        title="IPO",
        formula="(C/n_w - R/n_l - 1/(2 beta))^2; form sum: (d - 1/(2 beta))^2",
        paper="https://arxiv.org/abs/2310.12036",
        when_to_use="When preferences are nearly deterministic and DPO overfits: it stops at a finite margin. "
        "Twinkle's ipo is form sum with beta b^2 and weight b^2, for its beta b.",
    )
    type: Literal[LossKind.IPO] = LossKind.IPO
    form: IpoForm = Field(
        IpoForm.AVERAGE,
        description="`average` divides each log-ratio by its answer's tokens (as TRL does, after the authors), `sum` "
        "does not (OpenRLHF).",
    )


class ExoPairLoss(MarginLoss):
    about: ClassVar[About] = About(
        title="EXO for pairs",
        formula="s(beta d) (log s(beta d) - log(1-e)) + s(-beta d) (log s(-beta d) - log e)",
        paper="https://arxiv.org/abs/2402.00856",
        when_to_use="When the policy should seek the mode of the preferred answers: it minimises the reverse KL to the "
        "labels, smoothed by e, and stops at s(beta d) = 1 - e.",
    )
    type: Literal[LossKind.EXO_PAIR] = LossKind.EXO_PAIR
    label_smoothing: float = Field(
        1e-3,
        ge=1e-6,  # the loss has log e, in float32: what rounds to 0 there is infinite
        lt=0.5,
        description="Probability e that the target gives to the rejected answer; it cannot be 0. The paper takes 1e-3.",
    )


class RobustLoss(MarginLoss):
    about: ClassVar[About] = About(
        title="Robust DPO (rDPO)",
        formula="(-(1-e) log s(beta d) + e log s(-beta d)) / (1-2e)",
        paper="https://arxiv.org/abs/2403.00409",
        when_to_use="When a known share of the labels is flipped at random: its mean is that of DPO on clean labels. "
        "Not the same as sigmoid with label_smoothing, which is biased and milder.",
    )
    type: Literal[LossKind.ROBUST] = LossKind.ROBUST
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Share e of flipped labels; 0 is DPO.")


class DiscoPopLoss(MarginLoss):
    about: ClassVar[About] = About(
        title="DiscoPOP (log-ratio modulated loss)",
        formula="-(1-m) log s(beta d) + m exp(-beta d), m = s(beta d / tau)",
        paper="https://arxiv.org/abs/2406.08414",
        when_to_use="An alternative to sigmoid that was found by search. Not convex: a pair that is wrong by far pulls "
        "as in DPO, one just below 0 less.",
    )
    type: Literal[LossKind.DISCOPOP] = LossKind.DISCOPOP
    discopop_tau: float = Field(
        0.05,
        ge=1e-3,
        le=1,
        description="Temperature tau of the blend between both parts. Above 1 the loss would have no bound.",
    )


class SigmoidNormLoss(MarginLoss):
    about: ClassVar[About] = About(
        title="Length-normalised DPO (Tulu 3)",
        formula="-log s(beta (C/n_w - R/n_l))",
        paper="https://arxiv.org/abs/2411.15124",
        when_to_use="When answers grow longer under DPO. Log-ratios per token are small, so beta is taken larger than "
        "for sigmoid: Tulu 3 has 5.",
    )
    type: Literal[LossKind.SIGMOID_NORM] = LossKind.SIGMOID_NORM
