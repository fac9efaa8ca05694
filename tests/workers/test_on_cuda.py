"""What only a GPU shows: the numbers of its kernels, and that the host does not wait for it in every micro-batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from service.spec import Precision
from service.spec.losses import LossKind
from tests.models import make_tokenizer
from tests.workers.runs import make_pairs
from tests.workers.test_shared_prompt import ARCHITECTURES, one_at_a_time
from tests.workers.training_runs import make_job
from workers.data.examples import Example
from workers.engine.batching import facts_of, micro_batches
from workers.engine.logprobs import answer_logps, reference_logps, token_logps, token_stats
from workers.engine.metrics import StepSums
from workers.engine.models import autocast, round_frozen, split
from workers.losses import StepTotals, combine
from workers.reference.scorer import score

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA sees")

DEVICE = torch.device("cuda")
WIDE = {"vocab_size": 400, "hidden_size": 128, "intermediate_size": 256, "head_dim": 32}  # heads that kernels take
BY_KERNEL = ["llama", "qwen3", "mistral with a window", "gemma2", "gemma3", "granite"]


def make(name: str) -> PreTrainedModel:
    architecture, sizes = ARCHITECTURES[name]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(architecture, **sizes | WIDE), dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module")
def pairs() -> list[Example]:
    return make_pairs(make_tokenizer())


@pytest.mark.parametrize("name", BY_KERNEL)
def test_one_kernel_gives_the_scores_of_one_sequence_at_a_time(name: str, pairs: list[Example]) -> None:
    expected = one_at_a_time(make(name).double(), pairs)
    lm = split(make(name).to(DEVICE).requires_grad_(requires_grad=False), precision=Precision.BF16)
    assert (lm.no_sharing, lm.no_kernel, lm.no_body) == (None, None, None), lm.paths
    round_frozen(lm.model)
    gaps = [
        torch.from_numpy(one).double() - other
        for ours, wanted in zip(score(lm, pairs, Precision.BF16, 512), expected, strict=True)
        for one, other in zip(ours, wanted, strict=True)
    ]
    assert torch.cat(gaps).abs().mean() < 0.01  # bfloat16 rounds a log-prob of 6 by 0.02 at most


@pytest.mark.parametrize("name", BY_KERNEL)
def test_one_kernel_gives_the_gradient_of_float32(name: str, pairs: list[Example]) -> None:
    gradients = []
    for device, precision in ((DEVICE, Precision.BF16), (torch.device("cpu"), Precision.FLOAT32)):
        lm = split(make(name).to(device), precision=precision)
        for batch in micro_batches(pairs, 512, device, packed=True):
            with autocast(device, precision):
                stats = token_stats(lm, batch)
            answer_logps(stats, batch).sums_BK.sum().div(100).backward()
        gradients.append(_gradient(lm.model))
    got, expected = gradients
    assert (got - expected).norm() < 0.03 * expected.norm()


def _gradient(model: PreTrainedModel) -> Tensor:
    found = [one.grad for one in model.parameters()]
    return torch.cat([one.cpu().flatten() for one in found if one is not None])


@contextmanager
def without_waiting() -> Iterator[None]:
    """The host may not read what the GPU still computes."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "losses",
    [
        [{"type": "sigmoid"}],
        [{"type": "ipo"}, {"type": "sft", "weight": 0.2}],
        [{"type": "simpo"}],
        [{"type": "orpo", "nll_tokens": "all"}],
    ],
    ids=lambda losses: "+".join(loss["type"] for loss in losses),
)
def test_the_host_does_not_wait_while_a_micro_batch_is_under_way(
    losses: list[dict[str, Any]], pairs: list[Example]
) -> None:
    job = make_job(losses, precision="bf16")
    lm = split(make("qwen3").to(DEVICE), precision=Precision.BF16)
    facts = facts_of(pairs, DEVICE)
    totals = StepTotals.of(facts)
    (batch,) = micro_batches(pairs, 100_000, DEVICE, packed=True, with_prompts=losses[0]["type"] == "orpo")
    facts = facts.at(torch.tensor(batch.positions, device=DEVICE))
    sums = StepSums(job)

    def once() -> None:
        with autocast(DEVICE, Precision.BF16):
            stats = token_stats(lm, batch)
            with torch.no_grad():
                reference_A = token_logps(lm, batch)[batch.of_answers_A] if job.needs_reference else None
        reference = None if reference_A is None else reference_logps(reference_A, batch)
        policy = answer_logps(stats, batch)
        output = combine(job.losses, policy, reference, facts, totals, dict[LossKind, Any]())
        sums.add_tokens(stats, reference_A, batch, facts)
        sums.add_losses(output, policy.sums_BK, facts)
        output.per_example_B.sum().backward()

    once()  # compiles, and makes the row's masks
    with without_waiting():
        once()
    assert sums.means(DEVICE)["tokens"] == 2 * batch.num_tokens


def test_the_host_does_not_wait_while_batches_are_made_and_scored(pairs: list[Example]) -> None:
    lm = split(make("qwen3").to(DEVICE).requires_grad_(requires_grad=False), precision=Precision.BF16)

    def once() -> list[Tensor]:
        with torch.no_grad(), autocast(DEVICE, Precision.BF16):
            return [token_logps(lm, batch) for batch in micro_batches(pairs, 128, DEVICE, packed=True)]

    once()  # compiles
    with without_waiting():
        found = once()
    assert len(found) > 1
