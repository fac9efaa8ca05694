"""Metrics of one optimizer step: sums that any number of micro-batches and workers add to, divided once."""

from collections import defaultdict

import torch
from torch import Tensor, distributed

from service.spec import LossKind
from workers.losses import LossOutput, PairLogps


class StepSums:
    """Sums over the pairs of a step. Every worker adds the same names in the same order, whatever its share."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)

    def add(self, output: LossOutput, terms: dict[LossKind, Tensor], policy: PairLogps, *, num_tokens: int) -> None:
        sums = self._sums
        sums["tokens"] += num_tokens
        sums["loss"] += float(output.per_pair_B.detach().sum())
        for kind, per_pair_B in terms.items():
            sums[f"loss/{kind}"] += float(per_pair_B.sum())
        sums["logps/chosen"] += float(policy.chosen_B.detach().sum())
        if output.chosen_rewards_B is not None and output.rejected_rewards_B is not None:
            margins_B = output.chosen_rewards_B - output.rejected_rewards_B
            sums["logps/rejected"] += float(policy.rejected_B.detach().sum())
            sums["rewards/chosen"] += float(output.chosen_rewards_B.sum())
            sums["rewards/rejected"] += float(output.rejected_rewards_B.sum())
            sums["rewards/margins"] += float(margins_B.sum())
            sums["rewards/accuracies"] += float((margins_B > 0).sum())

    def means(self, num_pairs: int, names: list[str], device: torch.device) -> dict[str, float]:
        """Over all workers: every sum divided by the step's number of pairs, but `tokens`, which stays a sum."""
        totals = torch.tensor([self._sums[name] for name in names], dtype=torch.float64, device=device)
        if distributed.is_initialized():
            distributed.all_reduce(totals)
        values = dict(zip(names, totals.tolist(), strict=True))
        return {name: value if name == "tokens" else value / num_pairs for name, value in values.items()}


def metric_names(kinds: list[LossKind]) -> list[str]:
    """The names a job's steps have."""
    names = ["tokens", "loss", *(f"loss/{kind}" for kind in kinds), "logps/chosen"]
    if any(kind.needs_rejected for kind in kinds):
        rewards = [f"rewards/{name}" for name in ("chosen", "rejected", "margins", "accuracies")]
        names += ["logps/rejected", *rewards]
    return names
