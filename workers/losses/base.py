"""What a loss sees and what it gives back. Shape suffixes: B examples, K answers of the example with most."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairLogps:
    """Of pairs, one number for each answer: a log-prob or a log-ratio, summed over tokens or per token."""

    chosen_B: Tensor
    rejected_B: Tensor

    def minus(self, reference: "PairLogps") -> "PairLogps":
        """Log-ratios."""
        return PairLogps(self.chosen_B - reference.chosen_B, self.rejected_B - reference.rejected_B)

    def per_token(self, facts: "Facts") -> "PairLogps":
        return PairLogps(self.chosen_B / facts.counts_BK[:, 0], self.rejected_B / facts.counts_BK[:, 1])

    @property
    def margin_B(self) -> Tensor:
        return self.chosen_B - self.rejected_B


@dataclass(frozen=True)
class Logps:
    """Log-probs of the answers under one model, each summed over its counted tokens; 0 where there is no answer.

    Pairs have the chosen answer first; rankings are best first; of an unpaired example the second answer, if there is
    one, was written for another prompt (KTO's estimate of the KL).
    """

    sums_BK: Tensor
    shared_BK: Tensor | None = None  # over the first tokens only, as many as the shorter answer has; for `ld_alpha`
    prompt_B: Tensor | None = None  # of the prompt's tokens but the first; for ORPO's NLL over all tokens
    # mean over an answer's tokens of log p - log sum p^2, without gradient; for WPO
    certainty_BK: Tensor | None = None

    def pairs(self, ld_alpha: float | None = None) -> PairLogps:
        """The two answers; with `ld_alpha`, the tokens that one has more than the other count that much."""
        sums_BK = _at_least_float32(self.sums_BK)
        if ld_alpha is not None:
            assert self.shared_BK is not None
            shared_BK = _at_least_float32(self.shared_BK)
            sums_BK = shared_BK + ld_alpha * (sums_BK - shared_BK)
        return PairLogps(sums_BK[:, 0], sums_BK[:, 1])

    def zeros(self) -> "Logps":
        """Those of a model that finds all answers equally likely."""
        shared_BK = None if self.shared_BK is None else torch.zeros_like(self.shared_BK)
        return Logps(torch.zeros_like(self.sums_BK), shared_BK)

    def answers(self) -> Tensor:
        """[B, K]"""
        return _at_least_float32(self.sums_BK)


@dataclass(frozen=True)
class Facts:
    """What is known of the examples before any model sees them."""

    counts_BK: Tensor  # counted tokens, as floats; 0 where there is no answer
    weights_B: Tensor
    margins_B: Tensor
    prompt_counts_B: Tensor  # tokens of the prompt but the first
    desirable_B: Tensor | None = None  # bool; of unpaired answers

    @property
    def good_B(self) -> Tensor:
        """1 where the first answer is one to learn from: chosen, best or desirable."""
        return torch.ones_like(self.weights_B) if self.desirable_B is None else self.desirable_B.to(self.weights_B)

    def at(self, rows: Tensor) -> "Facts":
        """Those of the examples at these positions."""
        return Facts(
            self.counts_BK[rows],
            self.weights_B[rows],
            self.margins_B[rows],
            self.prompt_counts_B[rows],
            None if self.desirable_B is None else self.desirable_B[rows],
        )


@dataclass(frozen=True)
class StepTotals:
    """What the means of one optimizer step divide by: sums of weights over all workers and micro-batches, so that
    neither packing nor accumulation changes the result, and a row of weight 2 is the row twice."""

    weight: float  # of all examples
    good_weight: float  # of those whose first answer is one to learn from
    good_tokens: float  # weight times counted tokens of those answers
    good_prompt_tokens: float  # weight times tokens of their prompts but the first

    @staticmethod
    def of(facts: Facts) -> "StepTotals":
        good_B = facts.weights_B * facts.good_B
        return StepTotals(
            weight=float(facts.weights_B.sum()),
            good_weight=float(good_B.sum()),
            good_tokens=float((good_B * facts.counts_BK[:, 0]).sum()),
            good_prompt_tokens=float((good_B * facts.prompt_counts_B).sum()),
        )


@dataclass(frozen=True)
class RunningMean:
    """Mean of all rewards so far, each counted by its row's weight. State of a run: it goes into checkpoints."""

    mean: float = 0.0
    weight: float = 0.0

    def after(self, rewards: Tensor, weights: Tensor) -> "RunningMean":
        total = self.weight + float(weights.sum())
        added = float((rewards.detach() * weights).sum())
        return RunningMean((self.mean * self.weight + added) / total, total) if total else self


@dataclass(frozen=True)
class TermOutput:
    """One term, unweighted. `per_example_B` is scaled so that its sum over the step, each times its row's weight,
    divided by `StepTotals.weight` is the step's loss.

    Rewards are detached: beta times what the loss compares, that is log-ratios to the reference, whatever the
    divergence; without a reference, log-probs, per token where the loss takes them so. `rejected` is a pair's other
    answer, or a ranking's last. Of unpaired examples, chosen are the desirable and rejected the others, NaN elsewhere.
    None for `sft`.
    """

    per_example_B: Tensor
    chosen_rewards_B: Tensor | None = None
    rejected_rewards_B: Tensor | None = None
    baseline: RunningMean | None = None  # the new one, of a term that keeps one
    metrics: dict[str, float] | None = None  # of the step, that only this loss has


@dataclass(frozen=True)
class LossOutput:
    """All terms. `per_example_B` is their weighted sum times the rows' weights: its sum over the step divided by
    `StepTotals.weight` is the step's loss. Rewards are those of the first term that has any."""

    per_example_B: Tensor
    terms: dict[str, Tensor]  # by name (`term_names`): each term alone, unweighted, times the rows' weights; detached
    chosen_rewards_B: Tensor | None
    rejected_rewards_B: Tensor | None
    baselines: dict[str, RunningMean]
    metrics: dict[str, float]


def rewarded(per_example_B: Tensor, beta: float, compared: PairLogps) -> TermOutput:
    return TermOutput(per_example_B, beta * compared.chosen_B.detach(), beta * compared.rejected_B.detach())


def _at_least_float32(x: Tensor) -> Tensor:
    """Half precisions cannot hold a sum of log-probs."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
