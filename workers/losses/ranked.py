"""The loss of rankings."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

_ABSENT = -1e30  # the reward of an answer that is not there: beyond all others, and finite, so that gradients are


def plackett_luce(beta: float, ratios_BK: Tensor, present_BK: Tensor) -> Tensor:
    """-sum over j of log(exp(beta r_j) / sum over l >= j of exp(beta r_l)), r the log-ratios of the answers, best first
    (Rafailov et al., arXiv 2305.18290, appendix A.3). Of two answers it is sigmoid; at policy = reference log k!.

    present_BK: bool, whether there is such an answer; each row's answers come first. Returns [B]. Taken as
    -log s(beta r_j - log sum over l > j of exp(beta r_l)), which keeps its digits where the order is clear.
    """
    rewards_BK = (beta * ratios_BK).masked_fill(~present_BK, _ABSENT)
    loss_B = ratios_BK.new_zeros(len(ratios_BK))
    for j in range(ratios_BK.shape[1] - 1):
        worse_B = torch.logsumexp(rewards_BK[:, j + 1 :], dim=1)
        loss_B = loss_B + torch.where(present_BK[:, j], -logsigmoid(rewards_BK[:, j] - worse_B), 0.0)
    return loss_B
