"""Losses of the chosen and the rejected answer's log-ratio each: C and R, summed over tokens.

All functions return the per-pair loss, shape [B]; finite, with a finite gradient, at any finite log-ratio.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from workers.losses.base import PairLogps


def nca_pair(beta: float, ratios: PairLogps) -> Tensor:
    """-log s(beta C) - (log s(-beta C) + log s(-beta R)) / 2 (Chen et al., arXiv 2402.05369, K = 2).

    Least at s(beta C) = 2/3; there is no end to pushing R down.
    """
    chosen_B, rejected_B = beta * ratios.chosen_B, beta * ratios.rejected_B
    return -logsigmoid(chosen_B) - 0.5 * logsigmoid(-chosen_B) - 0.5 * logsigmoid(-rejected_B)


def bco_pair(beta: float, ratios: PairLogps, baseline: float) -> Tensor:
    """-log s(beta C - delta) - log s(delta - beta R), delta the baseline (Jung et al., arXiv 2404.04656); TRL 1.16 has
    delta = 0. 2 log 2 where both rewards are delta; no gradient once both are on their side of it by far."""
    return -logsigmoid(beta * ratios.chosen_B - baseline) - logsigmoid(baseline - beta * ratios.rejected_B)


def sppo_hard(beta: float, ratios: PairLogps) -> Tensor:
    """(C - 1/(2 beta))^2 + (R + 1/(2 beta))^2 (Wu et al., arXiv 2405.00675, with preference 1 or 0). 0, and without a
    gradient, at C = 1/(2 beta) = -R only; it pulls back what went beyond."""
    target = 0.5 / beta
    return (ratios.chosen_B - target) ** 2 + (ratios.rejected_B + target) ** 2


def apo_zero(beta: float, ratios: PairLogps) -> Tensor:
    """1 - s(beta C) + s(beta R) (D'Oosterlinck et al., arXiv 2408.06266). Between 0 and 2, 1 at policy = reference.

    Twinkle's kto_pair is this function. Both terms saturate: far from 0 the gradient vanishes.
    """
    return torch.sigmoid(-beta * ratios.chosen_B) + torch.sigmoid(beta * ratios.rejected_B)


def apo_down(beta: float, ratios: PairLogps) -> Tensor:
    """s(beta C) + 1 - s(beta d) (D'Oosterlinck et al., arXiv 2408.06266): lowers C, and R more than C.
    1 at policy = reference. Both terms saturate: far from 0 the gradient vanishes."""
    return torch.sigmoid(beta * ratios.chosen_B) + torch.sigmoid(-beta * ratios.margin_B)
