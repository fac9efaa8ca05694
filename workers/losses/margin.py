"""Losses of one margin a pair, d = C - R: log-ratios of the chosen and the rejected answer, summed over tokens.

The log-ratios are taken after the divergence, or are bare log-probs for a reference-free term. Where a row asks for a
reward margin m, all losses see d - m/beta in place of d (ODPO, Amini et al., arXiv 2402.10571). All functions return
the per-pair loss, shape [B]; finite, with a finite gradient, at any finite margin.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from service.spec.losses import (
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
from workers.losses.base import Facts, PairLogps
from workers.losses.numerics import capped_expm1


def margins(term: MarginLoss, ratios: PairLogps, facts: Facts) -> Tensor:
    """d of each pair, as the term reads it: per token for `sigmoid_norm` and for form `average` of `ipo`."""
    scores = divergence_scores(term, ratios)
    if isinstance(term, SigmoidNormLoss) or (isinstance(term, IpoLoss) and term.form is IpoForm.AVERAGE):
        scores = scores.per_token(facts)
    return scores.margin_B - facts.margins_B / term.beta


def divergence_scores(term: MarginLoss, ratios: PairLogps) -> PairLogps:
    """f'(e^u) in place of each log-ratio u (f-DPO, Wang et al., arXiv 2309.16240).

    reverse_kl: u. forward_kl: 1 - exp(-u). js: log 2 + log s(u). alpha, k its coefficient: (exp((k-1) u) - 1) / (k-1),
    of which k = 1 is reverse_kl and k = 0 forward_kl. All are 0 with slope 1 (js: 1/2) at u = 0. Exponentials beyond
    `capped_expm1`'s cap are bent, so that the value stays finite and its gradient does not vanish.
    """
    return PairLogps(_divergence_score(term, ratios.chosen_B), _divergence_score(term, ratios.rejected_B))


def _divergence_score(term: MarginLoss, ratios_B: Tensor) -> Tensor:
    match term.f_divergence:
        case Divergence.REVERSE_KL:
            return ratios_B
        case Divergence.FORWARD_KL:
            return -capped_expm1(-ratios_B)
        case Divergence.JS:
            return math.log(2) + logsigmoid(ratios_B)
        case Divergence.ALPHA:
            exponent = term.alpha_coef - 1
            return capped_expm1(exponent * ratios_B) / exponent if exponent else ratios_B


def smoothed_logsigmoid_loss(logits_B: Tensor, smoothing: float) -> Tensor:
    """-(1-e) log s(z) - e log s(-z): log 2 at z = 0 whatever e is."""
    return -(1 - smoothing) * logsigmoid(logits_B) - smoothing * logsigmoid(-logits_B)


def sigmoid(term: SigmoidLoss, margin_B: Tensor) -> Tensor:
    """DPO, -log s(beta d) (Rafailov et al., arXiv 2305.18290); with e = label_smoothing its conservative form
    -(1-e) log s(beta d) - e log s(-beta d) (Mitchell, 2023). log 2 at policy = reference, whatever beta and e are.
    """
    return smoothed_logsigmoid_loss(term.beta * margin_B, term.label_smoothing)


def hinge(term: HingeLoss, margin_B: Tensor) -> Tensor:
    """max(0, 1 - beta d) (SLiC, arXiv 2305.10425; RSO, arXiv 2309.06657). No gradient from beta d = 1 on."""
    return torch.relu(1 - term.beta * margin_B)


def ipo(term: IpoLoss, margin_B: Tensor) -> Tensor:
    """(C/n_w - R/n_l - 1/(2 beta))^2 (Azar et al., arXiv 2310.12036, eq. 17, averaged over tokens as its authors do);
    form `sum`: (d - 1/(2 beta))^2. A margin past 1/(2 beta) is pulled back."""
    return (margin_B - 1 / (2 * term.beta)) ** 2


def exo_pair(term: ExoPairLoss, margin_B: Tensor) -> Tensor:
    """KL of the policy's preference (s(beta d), s(-beta d)) from the labels (1-e, e) (Ji et al., arXiv 2402.00856,
    eq. 16). 0, its least, where s(beta d) = 1 - e; e = 0 would be infinite everywhere and cannot be asked for."""
    logits_B = term.beta * margin_B
    flipped = logits_B.new_tensor(term.label_smoothing, dtype=torch.float32)  # as TRL has it, for the same digits
    chosen_B = torch.sigmoid(logits_B) * (logsigmoid(logits_B) - torch.log1p(-flipped))
    rejected_B = torch.sigmoid(-logits_B) * (logsigmoid(-logits_B) - torch.log(flipped))
    return chosen_B + rejected_B


def robust(term: RobustLoss, margin_B: Tensor) -> Tensor:
    """(-(1-e) log s(beta d) + e log s(-beta d)) / (1-2e) (Chowdhury et al., arXiv 2403.00409): over labels flipped
    with probability e its mean is DPO's on clean ones. Not bounded below for e > 0."""
    logits_B, flipped = term.beta * margin_B, term.label_smoothing
    return (-(1 - flipped) * logsigmoid(logits_B) + flipped * logsigmoid(-logits_B)) / (1 - 2 * flipped)


def discopop(term: DiscoPopLoss, margin_B: Tensor) -> Tensor:
    """-(1-m) log s(beta d) + m exp(-beta d), m = s(beta d / tau) (Lu et al., arXiv 2406.08414).

    m exp(-beta d) is taken as one exponential, which tau <= 1 bounds by 1: apart it is 0 times infinity at beta d
    below -89 in float32.
    """
    logits_B = term.beta * margin_B
    modulated_B = logits_B / term.discopop_tau
    logistic_B = -torch.sigmoid(-modulated_B) * logsigmoid(logits_B)
    return logistic_B + torch.exp(logsigmoid(modulated_B) - logits_B)


def sigmoid_norm(term: SigmoidNormLoss, margin_B: Tensor) -> Tensor:
    """-log s(beta (C/n_w - R/n_l)): DPO of log-ratios per token (Tulu 3, arXiv 2411.15124)."""
    return -logsigmoid(term.beta * margin_B)
