"""Losses of the policy's log-probs alone."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from service.spec.losses import AlphaPoLoss, CpoForm, CpoLoss, NllTokens, OrpoLoss, SftLoss, SimpoLoss
from workers.losses.base import Facts, Logps, PairLogps, StepTotals, TermOutput, rewarded
from workers.losses.margin import smoothed_logsigmoid_loss
from workers.losses.numerics import capped_expm1, log1m_exp

_TINY = 1e-30  # what an empty sum is divided by: a step of undesirable answers has nothing to learn here


def simpo(term: SimpoLoss, policy: Logps, facts: Facts) -> TermOutput:
    """-log s(beta (a_w - a_l) - gamma), a log-probs per token (Meng et al., arXiv 2405.14734), smoothed as DPO's.

    gamma is absolute; it does not count as reward.
    """
    return _simpo(term, policy.pairs().per_token(facts), facts)


def alphapo(term: AlphaPoLoss, policy: Logps, facts: Facts) -> TermOutput:
    """SimPO of r = (1 - exp(-alpha a)) / alpha in place of a (Gupta et al., arXiv 2501.03884); r = a at alpha = 0.

    r and its gradient stay finite however unlikely an answer is; see `capped_expm1`.
    """
    average = policy.pairs().per_token(facts)
    return _simpo(term, PairLogps(_bent(term.alpha, average.chosen_B), _bent(term.alpha, average.rejected_B)), facts)


def _bent(alpha: float, average_B: Tensor) -> Tensor:
    return -capped_expm1(-alpha * average_B) / alpha if abs(alpha) > _TINY else average_B


def _simpo(term: SimpoLoss | AlphaPoLoss, compared: PairLogps, facts: Facts) -> TermOutput:
    logits_B = term.beta * compared.margin_B - term.gamma - facts.margins_B
    return rewarded(smoothed_logsigmoid_loss(logits_B, term.label_smoothing), term.beta, compared)


def cpo(term: CpoLoss, policy: Logps, facts: Facts) -> TermOutput:
    """The preference part of CPO (Xu et al., arXiv 2401.08417): -log s(z), smoothed as DPO's, or max(0, 1 - z), with
    z = beta (log p(chosen) - log p(rejected)) of sums; form `ipo`: (a_w - a_l - 1/(2 beta))^2 of log-probs per token.

    CPO's NLL is an `sft` term beside this one.
    """
    compared = policy.pairs().per_token(facts) if term.form is CpoForm.IPO else policy.pairs()
    margin_B = compared.margin_B - facts.margins_B / term.beta
    match term.form:
        case CpoForm.SIGMOID:
            loss_B = smoothed_logsigmoid_loss(term.beta * margin_B, term.label_smoothing)
        case CpoForm.HINGE:
            loss_B = torch.relu(1 - term.beta * margin_B)
        case CpoForm.IPO:
            loss_B = (margin_B - 1 / (2 * term.beta)) ** 2
    return rewarded(loss_B, term.beta, compared)


def orpo(term: OrpoLoss, policy: Logps, facts: Facts, totals: StepTotals) -> TermOutput:
    """nll - beta log s(log(odds_w / odds_l)), odds = exp(a) / (1 - exp(a)) (Hong et al., arXiv 2403.07691).

    nll is that of `sft`, over the answer tokens of the step; with `nll_tokens: all` over the prompts' tokens too. An
    answer of probability 1 has infinite odds; it counts as one rounding step less likely.
    """
    average = policy.pairs().per_token(facts)
    log_odds_B = average.margin_B - (log1m_exp(average.chosen_B) - log1m_exp(average.rejected_B))
    loss_B = _nll(term, policy, facts, totals) - term.beta * logsigmoid(log_odds_B)
    return rewarded(loss_B, term.beta, average)


def sft(term: SftLoss, policy: Logps, facts: Facts, totals: StepTotals) -> TermOutput:
    """-sum log p(chosen) / sum n_w: the mean over every counted token of the optimizer step.

    With `per_sequence`, the mean over answers of -log p(chosen) / n_w, as LLaMA-Factory and OpenRLHF compute it. Of
    unpaired examples only the desirable answers are learnt.
    """
    return TermOutput(_nll(term, policy, facts, totals))


def _nll(term: SftLoss | OrpoLoss, policy: Logps, facts: Facts, totals: StepTotals) -> Tensor:
    """Scaled so that the mean over examples is the mean over tokens, or over the means of answers."""
    logps_B, counts_B, tokens = policy.answers()[:, 0], facts.counts_BK[:, 0], totals.good_tokens
    if isinstance(term, OrpoLoss) and term.nll_tokens is NllTokens.ALL:
        assert policy.prompt_B is not None
        logps_B, counts_B = logps_B + policy.prompt_B, counts_B + facts.prompt_counts_B
        tokens += totals.good_prompt_tokens
    if term.per_sequence:
        return -logps_B / counts_B * facts.good_B * (totals.weight / max(totals.good_weight, _TINY))
    return -logps_B * facts.good_B * (totals.weight / max(tokens, _TINY))
