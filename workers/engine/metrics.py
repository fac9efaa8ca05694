"""Metrics of one optimizer step: means as a sum and a count each, to which any number of micro-batches and workers add,
divided once. docs/metrics.md defines every name.

What micro-batches add stays on the device until the step ends: a number that was read earlier would make the host wait
for the GPU each time.
"""

from collections import defaultdict

import torch
from torch import Tensor, distributed

from service.spec import AlignmentJob
from service.spec.losses import term_names
from service.spec.shapes import DataShape
from workers.engine.batching import Batch
from workers.engine.logprobs import TokenStats
from workers.losses import Facts, LossOutput

_SIDES = ["chosen", "rejected"]


class StepSums:
    """What one worker saw of a step."""

    def __init__(self, job: AlignmentJob) -> None:
        self._names = metric_names(job)
        self._shape = job.data_shape
        self._sums: defaultdict[str, float | Tensor] = defaultdict(float)
        self._counts: defaultdict[str, float | Tensor] = defaultdict(float)

    def add_tokens(self, stats: TokenStats, reference_A: Tensor | None, batch: Batch, facts: Facts) -> None:
        """What is read off single tokens. reference_A: the log-probs of answers' tokens under the reference."""
        self._sums["tokens"] += batch.num_tokens
        self._counts["tokens"] = 1
        of_answers_A = batch.of_answers_A
        slot_A, logps_A = batch.slot_N[of_answers_A], stats.logps_N.detach()[of_answers_A]
        side_A = self._sides(facts).flatten()[slot_A]
        for index, side in enumerate(_SIDES):
            self._add(f"logps_per_token/{side}", logps_A, side_A == index)
            self._add(f"logits/{side}", stats.mean_logit_N[of_answers_A], side_A == index)
        self._add("entropy", stats.entropy_N[of_answers_A], side_A < 2)
        self._add("token_accuracy", stats.is_top_N[of_answers_A], side_A == 0)
        is_last_A = torch.ones_like(slot_A, dtype=torch.bool)
        is_last_A[:-1] = slot_A[:-1] != slot_A[1:]
        self._add("logps/chosen_end", logps_A, is_last_A & (side_A == 0))
        if reference_A is not None:
            self._add("kl", 0.5 * (logps_A - reference_A) ** 2, side_A < 2)

    def add_losses(self, output: LossOutput, sums_BK: Tensor, facts: Facts) -> None:
        """What is read off whole answers."""
        weight = facts.weights_B.sum()
        losses = {f"loss/{kind}": per_example_B for kind, per_example_B in output.terms.items()}
        for name, per_example_B in (losses | {"loss": output.per_example_B}).items():
            self._sums[name] += per_example_B.detach().sum(dtype=torch.float64)
            self._counts[name] += weight
        for name, value in output.metrics.items():
            self._sums[name] += value
            self._counts[name] += 1
        sides_BK = self._sides(facts)
        for index, side in enumerate(_SIDES):
            self._add(f"logps/{side}", sums_BK.detach(), sides_BK == index)
            self._add(f"lengths/{side}", facts.counts_BK, sides_BK == index)
        chosen_B, rejected_B = output.chosen_rewards_B, output.rejected_rewards_B
        if chosen_B is None or rejected_B is None:
            return
        has_chosen_B, has_rejected_B = ~chosen_B.isnan(), ~rejected_B.isnan()
        self._add("rewards/chosen", chosen_B, has_chosen_B)
        self._add("rewards/rejected", rejected_B, has_rejected_B)
        if self._shape is not DataShape.UNPAIRED:
            everywhere_B = torch.ones_like(has_chosen_B)
            self._add("rewards/margins", chosen_B - rejected_B, everywhere_B)
            self._add("rewards/accuracies", (chosen_B > rejected_B).double(), everywhere_B)

    def means(self, device: torch.device) -> dict[str, float]:
        """Over all workers. `tokens` stays a sum; what no row of the step had is left out."""
        values = [one for name in self._names for one in (self._sums[name], self._counts[name])]
        totals = torch.stack([torch.as_tensor(one, dtype=torch.float64, device=device) for one in values]).view(-1, 2)
        if distributed.is_initialized():
            distributed.all_reduce(totals)
        means = {}
        for name, (value, count) in zip(self._names, totals.tolist(), strict=True):
            if count:
                means[name] = value if name == "tokens" else value / count
        if self._shape is DataShape.UNPAIRED and {"rewards/chosen", "rewards/rejected"} <= means.keys():
            means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
        return means

    def _add(self, name: str, values: Tensor, among: Tensor) -> None:
        """Those of `values` that are `among` the ones meant."""
        self._sums[name] += torch.where(among, values, 0).sum(dtype=torch.float64)
        self._counts[name] += among.sum(dtype=torch.float64)

    def _sides(self, facts: Facts) -> Tensor:
        """Of each answer [B, K]: 0 chosen, best or desirable; 1 rejected, worst or undesirable; 2 any other."""
        sides_BK = torch.full_like(facts.counts_BK, 2, dtype=torch.int64)
        sides_BK[:, 0] = 0
        if self._shape is DataShape.UNPAIRED:
            assert facts.desirable_B is not None
            sides_BK[:, 0] = (~facts.desirable_B).long()
        elif self._shape is not DataShape.ANSWERS:
            last_B = (facts.counts_BK > 0).sum(1) - 1
            sides_BK[torch.arange(len(last_B), device=last_B.device), last_B] = 1
        return sides_BK


def metric_names(job: AlignmentJob) -> list[str]:
    """The means of a job's steps, in an order that all workers share."""
    sides = _SIDES[:1] if job.data_shape is DataShape.ANSWERS else _SIDES
    per_side = [f"{name}/{side}" for name in ("logps", "logps_per_token", "logits", "lengths") for side in sides]
    names = ["tokens", "loss", *(f"loss/{name}" for name in term_names(job.losses)), *per_side, "logps/chosen_end"]
    names += ["entropy", "token_accuracy"]
    if job.needs_reference:
        names.append("kl")
    if job.needs_kl_answers:
        names.append("kto_kl")
    if job.data_shape is not DataShape.ANSWERS:
        names += ["rewards/chosen", "rewards/rejected"]
        if job.data_shape is not DataShape.UNPAIRED:
            names += ["rewards/margins", "rewards/accuracies"]
    return names
