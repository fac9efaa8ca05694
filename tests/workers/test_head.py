"""The head in chunks gives the numbers of whole logits, and never holds them."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from workers.engine import head
from workers.engine.head import logps, logps_and_facts

N, H, V = 300, 16, 50


class Wrapped(nn.Module):
    """As peft leaves a head that it adapts: not a plain linear layer."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: Tensor) -> Tensor:
        found: Tensor = self.inner(hidden)
        return found


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "_CHUNK", 128)
    monkeypatch.setattr(head, "_CHUNK_IN_CACHE", 64)


def case(*, bias: bool, dtype: torch.dtype = torch.float32) -> tuple[nn.Linear, Tensor, Tensor, Tensor]:
    """A head whose distributions are far from uniform, hidden states, targets, and a gradient by each log-prob."""
    torch.manual_seed(0)
    linear = nn.Linear(H, V, bias=bias, dtype=dtype)
    hidden_NH = 3 * torch.randn(N, H, dtype=dtype)
    return linear, hidden_NH.requires_grad_(), torch.randint(V, (N,)), torch.randn(N, dtype=dtype)


def in_full(linear: nn.Linear, hidden_NH: Tensor, targets_N: Tensor, slope_N: Tensor) -> list[Tensor]:
    """Log-probs, facts and gradients from all logits at one time, in float64."""
    hidden_NH = hidden_NH.detach().double().requires_grad_()
    weights = [weight.detach().double().requires_grad_() for weight in linear.parameters()]
    logits_NV = nn.functional.linear(hidden_NH, *weights)
    log_p_NV = logits_NV.log_softmax(1)
    logps_N = log_p_NV.gather(1, targets_N[:, None])[:, 0]
    p_NV = log_p_NV.exp()
    entropy_N, log_sum_sq_N = -(p_NV * log_p_NV).sum(1), p_NV.square().sum(1).log()
    is_top_N = (logits_NV.argmax(1) == targets_N).double()
    facts_4N = torch.stack([entropy_N, log_sum_sq_N, logits_NV.mean(1), is_top_N])
    return [logps_N, facts_4N, *torch.autograd.grad(logps_N, [hidden_NH, *weights], slope_N.double())]


def close(got: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(
            one.double(), other, rtol=tolerance, atol=tolerance * float(other.detach().abs().max())
        )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_log_probs_facts_and_gradients_equal_those_of_whole_logits(*, bias: bool, wrapped: bool) -> None:
    linear, hidden_NH, targets_N, slope_N = case(bias=bias)
    module = Wrapped(linear) if wrapped else linear
    logps_N, facts_4N = logps_and_facts(module, hidden_NH, targets_N)
    gradients = torch.autograd.grad(logps_N, [hidden_NH, *linear.parameters()], slope_N)
    close([logps_N, facts_4N, *gradients], in_full(linear, hidden_NH, targets_N, slope_N))
    assert logps_N.dtype == facts_4N.dtype == torch.float32
    with torch.no_grad():
        close([logps(module, hidden_NH, targets_N)], [logps_N.double()], 1e-6)


def test_a_frozen_head_passes_the_same_gradient_on() -> None:
    linear, hidden_NH, targets_N, slope_N = case(bias=True)
    linear.requires_grad_(requires_grad=False)
    logps_N, _ = logps_and_facts(linear, hidden_NH, targets_N)
    (by_hidden_NH,) = torch.autograd.grad(logps_N, [hidden_NH], slope_N)
    close([by_hidden_NH], in_full(linear, hidden_NH, targets_N, slope_N)[2:3])


def test_a_trained_head_over_frozen_hidden_states_gets_its_gradient() -> None:
    linear, hidden_NH, targets_N, slope_N = case(bias=True)
    logps_N, _ = logps_and_facts(linear, hidden_NH.detach(), targets_N)
    gradients = torch.autograd.grad(logps_N, list(linear.parameters()), slope_N)
    close(list(gradients), in_full(linear, hidden_NH, targets_N, slope_N)[3:])


@pytest.mark.parametrize("frozen", [False, True])
def test_the_gradient_is_the_slope_of_the_log_probs(*, frozen: bool) -> None:
    linear, hidden_NH, targets_N, _ = case(bias=True, dtype=torch.float64)
    linear.requires_grad_(requires_grad=not frozen)
    hidden_NH = hidden_NH[:5].detach().requires_grad_()
    weights = [] if frozen else list(linear.parameters())
    assert torch.autograd.gradcheck(
        lambda hidden_NH, *_: logps_and_facts(linear, hidden_NH, targets_N[:5])[0], (hidden_NH, *weights)
    )


def test_a_head_tied_to_the_embeddings_adds_up_the_gradients_of_both_uses() -> None:
    linear, _, targets_N, slope_N = case(bias=False)
    ids_N = targets_N.flip(0)
    logps_N, _ = logps_and_facts(linear, nn.functional.embedding(ids_N, linear.weight), targets_N)
    logps_N.backward(slope_N)
    weight_VH = linear.weight.detach().double().requires_grad_()
    expected_N = (weight_VH[ids_N] @ weight_VH.T).log_softmax(1).gather(1, targets_N[:, None])[:, 0]
    expected_N.backward(slope_N.double())
    assert linear.weight.grad is not None
    assert weight_VH.grad is not None
    close([logps_N, linear.weight.grad], [expected_N, weight_VH.grad])


@pytest.mark.parametrize("count", [0, 1, N])
def test_scores_of_bf16_weights_are_those_of_their_logits_in_float64(count: int) -> None:
    linear, hidden_NH, targets_N, _ = case(bias=True)
    linear, hidden_NH, targets_N = linear.to(torch.bfloat16), hidden_NH[:count].to(torch.bfloat16), targets_N[:count]
    logits_NV = linear(hidden_NH).double()
    expected_N = logits_NV.log_softmax(1).gather(1, targets_N[:, None])[:, 0]
    torch.testing.assert_close(logps(linear, hidden_NH, targets_N).double(), expected_N, rtol=1e-5, atol=1e-5)
    logps_N, facts_4N = logps_and_facts(linear, hidden_NH, targets_N)
    torch.testing.assert_close(logps_N.double(), expected_N, rtol=1e-5, atol=1e-5)
    assert facts_4N.shape == (4, count)
    (by_hidden_NH,) = torch.autograd.grad(logps_N.sum(), [hidden_NH])
    weight_VH = linear.weight.detach().double()
    by_hand_NH = weight_VH[targets_N] - logits_NV.detach().softmax(1) @ weight_VH
    torch.testing.assert_close(by_hidden_NH.double(), by_hand_NH, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("frozen", [False, True])
def test_under_autocast_only_the_products_are_bf16(*, frozen: bool) -> None:
    linear, hidden_NH, targets_N, slope_N = case(bias=True)
    linear.requires_grad_(requires_grad=not frozen)
    wanted = [hidden_NH] if frozen else [hidden_NH, *linear.parameters()]
    with torch.autocast("cpu", torch.bfloat16):
        logps_N, facts_4N = logps_and_facts(linear, hidden_NH, targets_N)
    gradients = torch.autograd.grad(logps_N, wanted, slope_N)
    assert {one.dtype for one in [logps_N, facts_4N, *gradients]} == {torch.float32}
    expected = in_full(linear, hidden_NH, targets_N, slope_N)
    close([logps_N, *gradients], [expected[0], *expected[2 : 2 + len(wanted)]], 0.02)
    logits_NV = nn.functional.linear(hidden_NH.bfloat16(), linear.weight.bfloat16(), linear.bias.bfloat16()).double()
    log_p_NV = logits_NV.log_softmax(1)
    close([logps_N], [log_p_NV.gather(1, targets_N[:, None])[:, 0]])  # the same logits, read exactly
    close([facts_4N[:2]], [torch.stack([-(log_p_NV.exp() * log_p_NV).sum(1), (2 * log_p_NV).exp().sum(1).log()])])


class LargestTensor(TorchDispatchMode):
    """The most elements that any result had."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def] # as torch's own
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            self.elements = max(self.elements, one.numel() if isinstance(one, Tensor) else 0)
        return result


@pytest.mark.parametrize("frozen", [False, True])
def test_no_tensor_grows_with_positions_times_vocabulary(*, frozen: bool) -> None:
    num_positions, num_tokens = 2000, 1000
    linear = nn.Linear(H, num_tokens).requires_grad_(requires_grad=not frozen)
    hidden_NH = torch.randn(num_positions, H, requires_grad=True)
    saved: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with LargestTensor() as largest, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logps_N, _ = logps_and_facts(linear, hidden_NH, torch.randint(num_tokens, (num_positions,)))
        logps_N.sum().backward()
    assert largest.elements == (64 if frozen else 128) * num_tokens  # a chunk's logits
    assert sum(saved) <= 2 * num_positions * H + num_tokens * (H + 1) + 4 * num_positions
