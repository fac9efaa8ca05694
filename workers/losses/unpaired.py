"""Losses of single answers: A is the log-ratio of each, summed over tokens; some are desirable, the others are not.

All functions return the loss of each example, shape [B]; finite, with a finite gradient, at any finite log-ratio.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from service.spec.losses import ApoZeroUnpairedLoss, KtoLoss


def kto(term: KtoLoss, ratios_B: Tensor, desirable_B: Tensor, kl: float) -> Tensor:
    """w_d (1 - s(beta (A - kl))) of desirable answers, w_u (1 - s(beta (kl - A))) of the others (Ethayarajh et al.,
    arXiv 2402.01306, eq. 8). kl: the reference point of the whole step, see `coupled.kto_kl`. Half of w at A = kl;
    far from there either side saturates and the gradient vanishes."""
    return _labelled(term, ratios_B - kl, desirable_B)


def apo_zero_unpaired(term: ApoZeroUnpairedLoss, ratios_B: Tensor, desirable_B: Tensor) -> Tensor:
    """w_d (1 - s(beta A)) of desirable answers, w_u s(beta A) of the others (D'Oosterlinck et al., arXiv
    2408.06266). KTO with kl = 0; saturates as it does."""
    return _labelled(term, ratios_B, desirable_B)


def _labelled(term: KtoLoss | ApoZeroUnpairedLoss, ratios_B: Tensor, desirable_B: Tensor) -> Tensor:
    rewards_B = term.beta * ratios_B
    return torch.where(
        desirable_B,
        term.desirable_weight * torch.sigmoid(-rewards_B),
        term.undesirable_weight * torch.sigmoid(rewards_B),
    )


def bco(beta: float, ratios_B: Tensor, desirable_B: Tensor, baseline: float) -> Tensor:
    """-log s(beta A - delta) of desirable answers, -log s(delta - beta A) of the others, delta the baseline (Jung et
    al., arXiv 2404.04656, without its prompt-distribution weights). log 2 at beta A = delta; the gradient vanishes only
    where the answer is on its own side by far."""
    shifted_B = beta * ratios_B - baseline
    return -logsigmoid(torch.where(desirable_B, shifted_B, -shifted_B))
