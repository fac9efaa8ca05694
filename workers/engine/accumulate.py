"""One optimizer step's forward and backward passes over micro-batches: its gradient and its metrics, however the
examples are cut up over workers and batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, distributed

from service.spec import AlignmentJob
from service.spec.losses import NllTokens, OrpoLoss
from workers.data.examples import Example
from workers.device import put
from workers.engine.adapters import LoraDropout
from workers.engine.batching import Batch, facts_of, micro_batches
from workers.engine.live_reference import LiveReference
from workers.engine.logprobs import TokenStats, answer_logps, reference_logps, token_logps, token_stats
from workers.engine.metrics import StepSums
from workers.engine.models import CausalLM, autocast
from workers.engine.parallel import Rank, backward_pass
from workers.losses import Facts, Logps, LossOutput, RunningMean, StepTotals, combine
from workers.reference.store import Score

Baselines = Mapping[str, RunningMean]


class Accumulator:
    """The examples of one step, the same for every worker, of which this one takes its micro-batches."""

    def __init__(
        self,
        job: AlignmentJob,
        lm: CausalLM,
        rank: Rank,
        dropout: LoraDropout,
        live_reference: LiveReference | None,
        examples: Sequence[Example],
        scores: Sequence[Score] | None,
        baselines: Baselines,
    ) -> None:
        self._job = job
        self._lm = lm
        self._rank = rank
        self._dropout = dropout
        self._live_reference = live_reference
        self._scores = scores
        self._device = lm.model.device
        self._examples = examples
        self._facts = facts_of(examples, self._device)
        self._totals = StepTotals.of(self._facts)
        self._sums = StepSums(job)
        self._baselines = baselines

    def run(self) -> tuple[dict[str, float], Baselines]:
        """The step's metrics over all workers and the reward baselines after it. Where gradients are enabled, adds the
        gradient of the step's loss to that of the parameters."""
        baselines = self._in_two_passes() if self._job.couples_rows else self._in_one_pass()
        return self._sums.means(self._device), baselines

    def _in_one_pass(self) -> Baselines:
        """For losses that are sums over examples: each micro-batch goes forward and backward on its own."""
        for batch, is_last in self._batches(self._examples):
            with backward_pass(self._lm.whole, is_last=is_last):
                policy, reference = self._logps(batch)
                facts = self._facts_at(batch)
                output = self._combine(policy, reference, facts)
                if torch.is_grad_enabled():
                    share = 0.0 if batch.is_filler else 1 / self._totals.weight
                    torch.autograd.backward(output.per_example_B.sum() * share)
            if not batch.is_filler:
                self._sums.add_losses(output, policy.sums_BK, facts)
        return self._baselines

    def _in_two_passes(self) -> Baselines:
        """For losses that read the whole step: its log-probs first, then the loss and its slope by each log-prob, then
        a second forward pass that carries the slopes to the weights."""
        with torch.no_grad():
            policy, reference = self._logps_of_all()
        leaves = [values for values in (policy.sums_BK, policy.shared_BK, policy.prompt_B) if values is not None]
        for values in leaves:
            values.requires_grad_(torch.is_grad_enabled())
        output = self._combine(policy, reference, self._facts)
        if self._rank.index == 0:  # every worker has the loss of all examples
            self._sums.add_losses(output, policy.sums_BK, self._facts)
        if torch.is_grad_enabled():
            loss = output.per_example_B.sum() / self._totals.weight
            self._backward(*torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))
        return output.baselines

    def _logps_of_all(self) -> tuple[Logps, Logps | None]:
        """Of the whole step, on every worker."""
        num_examples, num_answers = self._facts.counts_BK.shape
        # sums, shared, certainty of the policy; sums, shared of the reference
        answers_5BK = torch.zeros(5, num_examples, num_answers, dtype=torch.float64, device=self._device)
        prompt_B = torch.zeros(num_examples, dtype=torch.float64, device=self._device)
        for batch, _ in self._batches(self._examples):
            policy, reference = self._logps(batch)
            if batch.is_filler:
                continue
            found = [policy.sums_BK, policy.shared_BK, policy.certainty_BK]
            if reference is not None:
                found += [reference.sums_BK, reference.shared_BK]
            rows = self._rows(batch)
            for values_BK, one in zip(answers_5BK, found, strict=False):
                assert one is not None
                values_BK[rows, : batch.num_answers] = one
            assert policy.prompt_B is not None
            prompt_B[rows] = policy.prompt_B
        if self._rank.count > 1:
            distributed.all_reduce(answers_5BK)
            distributed.all_reduce(prompt_B)
        sums_BK, shared_BK, certainty_BK, reference_BK, reference_shared_BK = answers_5BK.clone()
        policy = Logps(sums_BK.clone(), shared_BK.clone(), prompt_B, certainty_BK)
        return policy, Logps(reference_BK, reference_shared_BK) if self._job.needs_reference else None

    def _backward(self, by_sums_BK: Tensor, by_shared_BK: Tensor, by_prompt_B: Tensor) -> None:
        """Answers after the last that has a slope, as KTO's to other prompts, are left out; but not with dropout, which
        drops the same as in the first pass only from the same batches."""
        num_answers = by_sums_BK.shape[1]
        if not self._dropout.is_on:
            sloped_K = ((by_sums_BK != 0) | (by_shared_BK != 0)).any(0).nonzero()
            num_answers = int(sloped_K.max()) + 1 if len(sloped_K) else 1
        examples = [replace(one, answers=one.answers[:num_answers]) for one in self._examples]
        for batch, is_last in self._batches(examples):
            rows, k = self._rows(batch), batch.num_answers
            slope_N = torch.cat([by_sums_BK[rows, :k].flatten(), by_prompt_B[rows]])[batch.slot_N]
            no_prompt_B = torch.zeros_like(by_prompt_B[rows])
            shared_slope_N = torch.cat([by_shared_BK[rows, :k].flatten(), no_prompt_B])[batch.slot_N]
            slope_N += shared_slope_N * batch.shared_N
            with backward_pass(self._lm.whole, is_last=is_last):
                logps_N = self._policy(batch).logps_N
                torch.autograd.backward(logps_N, (slope_N * (not batch.is_filler)).to(logps_N.dtype))

    def _logps(self, batch: Batch) -> tuple[Logps, Logps | None]:
        """Of a micro-batch under the policy and, if a loss needs it, the reference; notes the metrics of tokens."""
        stats = self._policy(batch)
        reference_A = self._reference(batch)
        if not batch.is_filler:
            self._sums.add_tokens(stats, reference_A, batch, self._facts_at(batch))
        reference = None if reference_A is None else reference_logps(reference_A, batch)
        return answer_logps(stats, batch), reference

    def _policy(self, batch: Batch) -> TokenStats:
        self._dropout.seed(batch.positions[0])
        with autocast(self._device, self._job.training.precision):
            stats: TokenStats = self._lm.whole(token_stats, self._lm, batch)
            return stats

    def _reference(self, batch: Batch) -> Tensor | None:
        """Log-probs of the answers' tokens in the order of the batch, shape [A]."""
        if self._live_reference:
            lm = self._live_reference.lm
            with torch.no_grad(), autocast(self._device, self._job.training.precision):
                logps_N: Tensor = lm.whole(token_logps, lm, batch)
            return logps_N[batch.of_answers_A]
        if self._scores is None:
            return None
        scores = [answer for i in batch.positions for answer in self._scores[i]]
        return put(torch.from_numpy(np.concatenate(scores)), self._device)

    def _batches(self, examples: Sequence[Example]) -> Iterator[tuple[Batch, bool]]:
        """This worker's, each with whether it is the last."""
        with_prompts = any(isinstance(loss, OrpoLoss) and loss.nll_tokens is NllTokens.ALL for loss in self._job.losses)
        batches = micro_batches(
            examples,
            self._job.training.micro_batch_tokens,
            self._device,
            packed=self._lm.shares_prompts,
            with_prompts=with_prompts,
            rank=self._rank,
        )
        batch = next(batches)
        for following in batches:
            yield batch, False
            batch = following
        yield batch, True

    def _rows(self, batch: Batch) -> Tensor:
        """Places of the batch's examples in the step."""
        return put(torch.tensor(batch.positions), self._device)

    def _facts_at(self, batch: Batch) -> Facts:
        facts = self._facts.at(self._rows(batch))
        return replace(facts, counts_BK=facts.counts_BK[:, : batch.num_answers])

    def _combine(self, policy: Logps, reference: Logps | None, facts: Facts) -> LossOutput:
        return combine(self._job.losses, policy, reference, facts, self._totals, self._baselines)
