"""Losses of the policy's log-probs alone: no reference model, no reference pass."""

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from service.spec.losses.base import About, LabelSmoothing, LossKind, LossTerm

_GAMMA = (
    "Target margin gamma inside the sigmoid, absolute as in TRL, Twinkle and LLaMA-Factory: the paper's "
    "gamma_beta_ratio is gamma / beta."
)
_SCALE = "Scale of the log-probs, dimensionless."


class SimpoLoss(LossTerm):
    uses_margin: ClassVar[bool] = True

    about: ClassVar[About] = About(
        title="SimPO",
        formula="-(1-e) log s(z) - e log s(-z), z = beta (a_w - a_l) - gamma",
        paper="https://arxiv.org/abs/2405.14734",
        when_to_use="When a reference pass costs too much or answers grow longer: what is rewarded is what generation "
        "follows, the log-prob per token. Sensitive to the learning rate. Has no hidden NLL: add an sft term for TRL's "
        "cpo_alpha.",
    )
    type: Literal[LossKind.SIMPO] = LossKind.SIMPO
    beta: float = Field(2.5, ge=1e-6, le=100, description=f"{_SCALE} The paper takes 2 to 2.5; TRL's default is 0.1.")
    gamma: float = Field(0.5, ge=0, le=100, description=_GAMMA)
    label_smoothing: LabelSmoothing = 0.0


class AlphaPoLoss(LossTerm):
    uses_margin: ClassVar[bool] = True

    about: ClassVar[About] = About(
        title="AlphaPO",
        formula="-(1-e) log s(z) - e log s(-z), z = beta (r_w - r_l) - gamma, r = (1 - exp(-alpha a)) / alpha",
        paper="https://arxiv.org/abs/2501.03884",
        when_to_use="SimPO with a bent reward: alpha > 0 pulls harder where answers are unlikely, which holds back "
        "likelihood displacement. alpha 0 is simpo.",
    )
    type: Literal[LossKind.ALPHAPO] = LossKind.ALPHAPO
    beta: float = Field(2.5, ge=1e-6, le=100, description=f"{_SCALE} TRL's default is 0.1.")
    gamma: float = Field(0.5, ge=0, le=100, description=_GAMMA)
    alpha: float = Field(
        0.25, ge=-5, le=5, description="Shape of the reward; 0 is its limit, the log-prob itself. TRL's default is 0."
    )
    label_smoothing: LabelSmoothing = 0.0


class CpoForm(StrEnum):
    SIGMOID = "sigmoid"
    HINGE = "hinge"
    IPO = "ipo"


class CpoLoss(LossTerm):
    uses_margin: ClassVar[bool] = True

    about: ClassVar[About] = About(
        title="CPO: DPO, SLiC or IPO without a reference",
        formula="with z = beta (log p(chosen) - log p(rejected)): -(1-e) log s(z) - e log s(-z); form hinge: "
        "max(0, 1 - z); form ipo: (a_w - a_l - 1/(2 beta))^2",
        paper="https://arxiv.org/abs/2401.08417",
        when_to_use="Together with {type: sft, weight: 1}, which makes it the paper's CPO (TRL's cpo_alpha = 1, "
        "Twinkle's bc_coef = 1); alone, it lets the policy drift without a hold. No reference pass.",
    )
    type: Literal[LossKind.CPO] = LossKind.CPO
    beta: float = Field(0.1, ge=1e-6, le=100, description=_SCALE)
    form: CpoForm = Field(
        CpoForm.SIGMOID, description="`sigmoid` and `hinge` of summed log-probs, `ipo` of log-probs per token."
    )
    label_smoothing: LabelSmoothing = 0.0

    @model_validator(mode="after")
    def _smoothing_is_used(self) -> "CpoLoss":
        if self.label_smoothing and self.form is not CpoForm.SIGMOID:
            raise ValueError(f"`label_smoothing` is used by form 'sigmoid' only, not by '{self.form}'")
        return self


class NllTokens(StrEnum):
    COMPLETION = "completion"
    ALL = "all"  # all but the first of the prompt, which nothing predicts, and of the answer


class OrpoLoss(LossTerm):
    about: ClassVar[About] = About(
        title="ORPO",
        formula="nll - beta log s(log(odds_w / odds_l)), odds = exp(a) / (1 - exp(a)), nll as of sft",
        paper="https://arxiv.org/abs/2403.07691",
        when_to_use="To go from a base model to an aligned one in a single stage: it learns the chosen answers (NLL) "
        "and the preference (odds ratio) at one time.",
    )
    type: Literal[LossKind.ORPO] = LossKind.ORPO
    beta: float = Field(
        0.1, ge=1e-6, le=100, description="Factor of the odds-ratio part: the paper's lambda, Twinkle's lambda_orpo."
    )
    nll_tokens: NllTokens = Field(
        NllTokens.COMPLETION,
        description="Tokens that the NLL covers: `completion`, those of the chosen answers, as in Twinkle and the "
        "paper; or `all`, with the prompt's, as in TRL.",
    )
    per_sequence: bool = Field(
        False,
        description="Of the NLL. False: mean over all its tokens of the whole optimizer step. True: mean of the means "
        "of each answer, as in LLaMA-Factory.",
    )


class SftLoss(LossTerm):
    about: ClassVar[About] = About(
        title="Supervised fine-tuning on the chosen answers",
        formula="-sum log p(chosen) / sum n_w over the optimizer step; per_sequence: mean of -log p(chosen) / n_w",
        paper=None,
        when_to_use="Alone, on answers without a worse one; or beside a preference loss, with a small weight, to keep "
        "the chosen answers likely: LLaMA-Factory's pref_ftx, Twinkle's sft_weight, TRL's rpo_alpha.",
    )
    type: Literal[LossKind.SFT] = LossKind.SFT
    per_sequence: bool = Field(
        False,
        description="False: mean over all counted tokens of the whole optimizer step. True: mean of per-answer means.",
    )
