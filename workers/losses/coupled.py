"""Losses whose rows depend on each other: they are of a whole optimizer step, never of a part of it."""

import torch
from torch import Tensor

from service.spec.losses import AotLoss, AotUnpairedLoss
from workers.losses.base import PairLogps
from workers.losses.margin import smoothed_logsigmoid_loss


def aot(term: AotLoss, policy: PairLogps, reference: PairLogps) -> Tensor:
    """z = sort(log p(chosen) - log p(rejected)) - sort(log q(chosen) - log q(rejected)), smoothed -log s(beta z) as
    DPO's (Melnyk et al., arXiv 2406.05882, paired). Quantiles of the step's margins under both models are compared.

    Returns [B], in the order of quantiles, not of pairs. In a step of one pair it is sigmoid. log 2 at policy =
    reference; a quantile that is ahead by far has no gradient. Pairs of equal margin are taken in any order.
    """
    return _of_quantiles(term, policy.margin_B, reference.margin_B)


def aot_unpaired(term: AotUnpairedLoss, ratios: PairLogps) -> Tensor:
    """z = sort(C) - sort(R), smoothed -log s(beta z) (Melnyk et al., arXiv 2406.05882, unpaired): the quantiles of all
    chosen answers against those of all rejected ones. Returns [B], in the order of quantiles. log 2 at policy =
    reference; in a step of one pair it is sigmoid.
    """
    return _of_quantiles(term, ratios.chosen_B, ratios.rejected_B)


def _of_quantiles(term: AotLoss | AotUnpairedLoss, upper_B: Tensor, lower_B: Tensor) -> Tensor:
    z_B = torch.sort(upper_B, dim=0).values - torch.sort(lower_B, dim=0).values
    return smoothed_logsigmoid_loss(term.beta * z_B, term.label_smoothing)


def kto_kl(ratios_B: Tensor, weights_B: Tensor) -> float:
    """max(0, mean of log p - log q) over answers that were written for other prompts: KTO's reference point
    (Ethayarajh et al., arXiv 2402.01306). In nats per answer; no gradient."""
    return max(0.0, float((ratios_B.detach() * weights_B).sum() / weights_B.sum()))
