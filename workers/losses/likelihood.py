"""Losses of the policy's log-probs alone."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from service.spec.losses import AlphaPoLoss, CpoForm, CpoLoss, OrpoLoss, SftLoss, SimpoLoss
from workers.losses.base import LossOutput, PairCounts, PairLogps, StepTotals, rewarded
from workers.losses.margin import smoothed_logsigmoid_loss
from workers.losses.numerics import capped_expm1, log1m_exp


def simpo(term: SimpoLoss, policy: PairLogps, counts: PairCounts) -> LossOutput:
    """-log s(beta (a_w - a_l) - gamma), a log-probs per token (Meng et al., arXiv 2405.14734), smoothed as DPO's.

    gamma is absolute; it does not count as reward.
    """
    return _simpo(term, policy.per_token(counts))


def alphapo(term: AlphaPoLoss, policy: PairLogps, counts: PairCounts) -> LossOutput:
    """SimPO of r = (1 - exp(-alpha a)) / alpha in place of a (Gupta et al., arXiv 2501.03884); r = a at alpha = 0.

    r and its gradient stay finite however unlikely an answer is; see `capped_expm1`.
    """
    average = policy.per_token(counts)
    return _simpo(term, PairLogps(_bent(term.alpha, average.chosen_B), _bent(term.alpha, average.rejected_B)))


def _bent(alpha: float, average_B: Tensor) -> Tensor:
    return -capped_expm1(-alpha * average_B) / alpha if alpha else average_B


def _simpo(term: SimpoLoss | AlphaPoLoss, compared: PairLogps) -> LossOutput:
    logits_B = term.beta * compared.margin_B - term.gamma
    return rewarded(smoothed_logsigmoid_loss(logits_B, term.label_smoothing), term.beta, compared)


def cpo(term: CpoLoss, policy: PairLogps, counts: PairCounts) -> LossOutput:
    """The preference part of CPO (Xu et al., arXiv 2401.08417): -log s(z), smoothed as DPO's, or max(0, 1 - z), with
    z = beta (log p(chosen) - log p(rejected)) of sums; form `ipo`: (a_w - a_l - 1/(2 beta))^2 of log-probs per token.

    CPO's NLL is an `sft` term beside this one.
    """
    match term.form:
        case CpoForm.SIGMOID:
            loss_B = smoothed_logsigmoid_loss(term.beta * policy.margin_B, term.label_smoothing)
        case CpoForm.HINGE:
            loss_B = torch.relu(1 - term.beta * policy.margin_B)
        case CpoForm.IPO:
            average = policy.per_token(counts)
            return rewarded((average.margin_B - 1 / (2 * term.beta)) ** 2, term.beta, average)
    return rewarded(loss_B, term.beta, policy)


def orpo(term: OrpoLoss, policy: PairLogps, counts: PairCounts, totals: StepTotals) -> LossOutput:
    """nll - beta log s(log(odds_w / odds_l)), odds = exp(a) / (1 - exp(a)) (Hong et al., arXiv 2403.07691).

    nll is that of `sft`, over the answer tokens of the step. An answer of probability 1 has infinite odds; it counts
    as one rounding step less likely.
    """
    average = policy.per_token(counts)
    log_odds_B = average.margin_B - (log1m_exp(average.chosen_B) - log1m_exp(average.rejected_B))
    loss_B = _nll(policy, totals) - term.beta * logsigmoid(log_odds_B)
    return rewarded(loss_B, term.beta, average)


def sft(term: SftLoss, policy: PairLogps, counts: PairCounts, totals: StepTotals) -> LossOutput:
    """-sum log p(chosen) / sum n_w: the mean over every counted token of the optimizer step.

    With `per_sequence`, the mean over answers of -log p(chosen) / n_w, as LLaMA-Factory and OpenRLHF compute it.
    """
    return LossOutput(-policy.chosen_B / counts.chosen_B if term.per_sequence else _nll(policy, totals))


def _nll(policy: PairLogps, totals: StepTotals) -> Tensor:
    return -policy.chosen_B * (totals.pairs / totals.chosen_tokens)
