"""Each loss of one pair, or of one desirable and one undesirable answer, as a function of their log-probs.

The same mathematics as workers/losses, which has the sources: the control plane has no torch, and tests hold both to
the same values and derivatives over all options.
"""

import math
from dataclasses import dataclass

from service.spec.curves.dual import Dual, capped_expm1, exp, log1m_exp, log_sigmoid, relu, sigmoid, squared
from service.spec.losses import (
    AlphaPoLoss,
    AotLoss,
    AotUnpairedLoss,
    ApoDownLoss,
    ApoZeroLoss,
    ApoZeroUnpairedLoss,
    BcoLoss,
    BcoPairLoss,
    CpoForm,
    CpoLoss,
    DiscoPopLoss,
    Divergence,
    ExoPairLoss,
    HingeLoss,
    IpoForm,
    IpoLoss,
    KtoLoss,
    KtoPairLoss,
    Loss,
    MarginLoss,
    NcaPairLoss,
    OrpoLoss,
    PlackettLuceLoss,
    RobustLoss,
    SftLoss,
    SigmoidLoss,
    SigmoidNormLoss,
    SimpoLoss,
    SppoHardLoss,
)
from service.spec.losses.base import ReferenceLoss

TOKENS = 10  # of each answer
LOGP = -30.0  # of each answer under the reference, summed over its tokens


@dataclass(frozen=True)
class Answers:
    """Two numbers: log-probs, log-ratios or rewards of the chosen and the rejected answer."""

    chosen: Dual
    rejected: Dual

    @property
    def margin(self) -> Dual:
        return self.chosen - self.rejected

    def per_token(self) -> "Answers":
        return Answers(self.chosen / TOKENS, self.rejected / TOKENS)


def loss_of(term: Loss, policy: Answers) -> Dual:
    """The term times its weight. policy: the answers' log-probs."""
    return term.weight * _unweighted(term, policy)


def _unweighted(term: Loss, policy: Answers) -> Dual:
    match term:
        case SimpoLoss():
            return _simpo(term, policy.per_token())
        case AlphaPoLoss():
            average = policy.per_token()
            return _simpo(term, Answers(_bent(term.alpha, average.chosen), _bent(term.alpha, average.rejected)))
        case CpoLoss():
            return _cpo(term, policy)
        case OrpoLoss():
            average = policy.per_token()
            log_odds = average.margin - (log1m_exp(average.chosen) - log1m_exp(average.rejected))
            return -average.chosen - term.beta * log_sigmoid(log_odds)
        case SftLoss():
            return -policy.per_token().chosen
    logp = LOGP if term.needs_reference else 0.0
    return _of_ratios(term, Answers(policy.chosen - logp, policy.rejected - logp))


def _of_ratios(term: ReferenceLoss, ratios: Answers) -> Dual:
    rewards = Answers(term.beta * ratios.chosen, term.beta * ratios.rejected)
    match term:
        case MarginLoss():
            return _of_margin(term, ratios)
        case AotLoss() | AotUnpairedLoss():
            return _smoothed(rewards.margin, term.label_smoothing)
        case PlackettLuceLoss():
            return -log_sigmoid(rewards.margin)
        case NcaPairLoss():
            return -log_sigmoid(rewards.chosen) - (log_sigmoid(-rewards.chosen) + log_sigmoid(-rewards.rejected)) / 2
        case BcoPairLoss():
            return -log_sigmoid(rewards.chosen) - log_sigmoid(-rewards.rejected)
        case SppoHardLoss():
            target = 0.5 / term.beta
            return squared(ratios.chosen - target) + squared(ratios.rejected + target)
        case ApoZeroLoss() | KtoPairLoss():
            return sigmoid(-rewards.chosen) + sigmoid(rewards.rejected)
        case ApoDownLoss():
            return sigmoid(rewards.chosen) + sigmoid(-rewards.margin)
        case KtoLoss() | ApoZeroUnpairedLoss():
            good, bad = sigmoid(-rewards.chosen), sigmoid(rewards.rejected)
            return (term.desirable_weight * good + term.undesirable_weight * bad) / 2
        case BcoLoss():
            return (-log_sigmoid(rewards.chosen) - log_sigmoid(-rewards.rejected)) / 2
    raise AssertionError(f"no curve is written down for {term!r}")


def _of_margin(term: MarginLoss, ratios: Answers) -> Dual:
    scores = Answers(_score(term, ratios.chosen), _score(term, ratios.rejected))
    if isinstance(term, SigmoidNormLoss) or (isinstance(term, IpoLoss) and term.form is IpoForm.AVERAGE):
        scores = scores.per_token()
    z = term.beta * scores.margin
    match term:
        case SigmoidLoss():
            return _smoothed(z, term.label_smoothing)
        case HingeLoss():
            return relu(1 - z)
        case IpoLoss():
            return squared(scores.margin - 1 / (2 * term.beta))
        case ExoPairLoss():
            e = term.label_smoothing
            return sigmoid(z) * (log_sigmoid(z) - math.log1p(-e)) + sigmoid(-z) * (log_sigmoid(-z) - math.log(e))
        case RobustLoss():
            e = term.label_smoothing
            return (e * log_sigmoid(-z) - (1 - e) * log_sigmoid(z)) / (1 - 2 * e)
        case DiscoPopLoss():
            modulated = z / term.discopop_tau
            return -sigmoid(-modulated) * log_sigmoid(z) + exp(log_sigmoid(modulated) - z)
        case SigmoidNormLoss():
            return -log_sigmoid(z)
    raise AssertionError(f"no curve is written down for {term!r}")


def _score(term: MarginLoss, ratio: Dual) -> Dual:
    match term.f_divergence:
        case Divergence.REVERSE_KL:
            return ratio
        case Divergence.FORWARD_KL:
            return -capped_expm1(-ratio)
        case Divergence.JS:
            return math.log(2) + log_sigmoid(ratio)
        case Divergence.ALPHA:
            exponent = term.alpha_coef - 1
            return capped_expm1(exponent * ratio) / exponent if exponent else ratio


def _smoothed(z: Dual, smoothing: float) -> Dual:
    return -(1 - smoothing) * log_sigmoid(z) - smoothing * log_sigmoid(-z)


def _simpo(term: SimpoLoss | AlphaPoLoss, compared: Answers) -> Dual:
    return _smoothed(term.beta * compared.margin - term.gamma, term.label_smoothing)


def _bent(alpha: float, average: Dual) -> Dual:
    return -capped_expm1(-alpha * average) / alpha if abs(alpha) > 1e-30 else average


def _cpo(term: CpoLoss, policy: Answers) -> Dual:
    match term.form:
        case CpoForm.SIGMOID:
            return _smoothed(term.beta * policy.margin, term.label_smoothing)
        case CpoForm.HINGE:
            return relu(1 - term.beta * policy.margin)
        case CpoForm.IPO:
            return squared(policy.per_token().margin - 1 / (2 * term.beta))
