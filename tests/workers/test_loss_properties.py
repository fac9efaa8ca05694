"""What holds for every loss at any log-probs: finite, monotone where it says so, a sum over pairs and over terms."""

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from service.spec.losses import DECLARATIONS, Divergence, Loss, LossKind, MarginLoss
from workers.losses import PairCounts, PairLogps, StepTotals, combine

settings.register_profile("losses", max_examples=15, deadline=None)  # many variants, on machines that are busy
FEW = settings.get_profile("losses")

EXTREMES = [-1000.0, -90.0, -1.0, 0.0, 1.0, 90.0, 1000.0]
LOG_RATIO = st.floats(-1000, 1000, width=32)
BETA = st.floats(0.01, 10)

OPTIONS: dict[LossKind, list[dict[str, Any]]] = {
    LossKind.SIGMOID: [{"label_smoothing": 0.3}],
    LossKind.IPO: [{"form": "sum"}],
    LossKind.EXO_PAIR: [{"label_smoothing": 0.3}],
    LossKind.ROBUST: [{"label_smoothing": 0.45}],
    LossKind.DISCOPOP: [{"discopop_tau": 1.0}, {"discopop_tau": 0.001}],
    LossKind.CPO: [{"form": "hinge"}, {"form": "ipo"}, {"label_smoothing": 0.3}],
    LossKind.SIMPO: [{"label_smoothing": 0.3, "gamma": 2}],
    LossKind.ALPHAPO: [{"alpha": 3.0}, {"alpha": -3.0}],
    LossKind.SFT: [{"per_sequence": True}],
}
DIVERGENCES: list[dict[str, Any]] = [
    *({"f_divergence": name} for name in Divergence if name is not Divergence.REVERSE_KL),
    {"f_divergence": "alpha", "f_alpha_divergence_coef": 3.0},
    {"f_divergence": "alpha", "f_alpha_divergence_coef": 0.999},
]


def variants() -> list[Loss]:
    """Every loss, and each with its options."""
    found: list[Any] = []
    for kind, declared in DECLARATIONS.items():
        options = [{}, *OPTIONS.get(kind, [])]
        if issubclass(declared, MarginLoss):
            options += [*DIVERGENCES, {"reference_free": True}]
        found += [declared.model_validate(chosen) for chosen in options]
    return found


VARIANTS = variants()


def name(term: object) -> str:
    said = {key: said for key, said in vars(term).items() if key not in ("type", "weight")}
    return f"{vars(term)['type']}-{said}"


def logps(*values: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def gradients(term: Loss, chosen: Tensor, rejected: Tensor, tokens: float = 1) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of each pair and its gradient by both answers' log-probs, against a reference of zeros."""
    chosen, rejected = chosen.clone().requires_grad_(), rejected.clone().requires_grad_()
    zeros, counts = torch.zeros_like(chosen), torch.full(chosen.shape, tokens)
    totals = StepTotals(len(chosen), int(tokens * len(chosen)))
    policy, reference = PairLogps(chosen, rejected), PairLogps(zeros, zeros)
    output, _ = combine([term], policy, reference, PairCounts(counts, counts), totals)
    output.per_pair_B.sum().backward()
    none = torch.zeros_like(chosen)
    return (
        output.per_pair_B.detach(),
        chosen.grad if chosen.grad is not None else none,
        rejected.grad if rejected.grad is not None else none,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("term", VARIANTS, ids=name)
@FEW
@given(pairs=st.lists(st.tuples(LOG_RATIO, LOG_RATIO), min_size=1, max_size=20), beta=BETA)
@example(pairs=[(chosen, rejected) for chosen in EXTREMES for rejected in EXTREMES], beta=0.1)
@example(pairs=[(chosen, rejected) for chosen in EXTREMES for rejected in EXTREMES], beta=10)
def test_finite_with_a_finite_gradient_at_any_log_ratio(
    term: Loss, dtype: torch.dtype, pairs: list[tuple[float, float]], beta: float
) -> None:
    if "beta" in type(term).model_fields:
        term = term.model_copy(update={"beta": beta})
    chosen, rejected = (logps(*side, dtype=dtype) for side in zip(*pairs, strict=True))
    for result in gradients(term, chosen, rejected):
        assert torch.isfinite(result).all()


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
def test_a_divergence_keeps_pulling_where_its_exponential_would_overflow(divergence: dict[str, Any]) -> None:
    term = DECLARATIONS[LossKind.SIGMOID].model_validate(divergence)
    rising = divergence.get("f_alpha_divergence_coef", 0) > 1  # steep above 0, as the others are below
    chosen, rejected = (0.0, 1000.0) if rising else (-1000.0, 0.0)
    loss, by_chosen, by_rejected = gradients(term, logps(chosen), logps(rejected))
    assert loss.item() > 1
    assert abs((by_rejected if rising else by_chosen).item()) > 0.01


MONOTONE = [
    term
    for term in VARIANTS
    if term.type
    in {"sigmoid", "hinge", "robust", "sigmoid_norm", "bco_pair", "apo_zero", "kto_pair", "simpo", "alphapo"}
    and not getattr(term, "label_smoothing", 0)
] + [DECLARATIONS[LossKind.ROBUST].model_validate({"label_smoothing": 0.4}), DECLARATIONS[LossKind.CPO]()]


@pytest.mark.parametrize("term", MONOTONE, ids=name)
@FEW
@given(low=LOG_RATIO, high=LOG_RATIO, other=LOG_RATIO)
def test_a_likelier_chosen_and_an_unlikelier_rejected_answer_never_cost_more(
    term: Loss, low: float, high: float, other: float
) -> None:
    low, high = min(low, high), max(low, high)
    ends, others = logps(low, high, dtype=torch.float64), logps(other, other, dtype=torch.float64)
    by_chosen, _, _ = gradients(term, ends, others)
    by_rejected, _, _ = gradients(term, others, ends)
    rounding = 1e-12 * (1 + torch.cat([by_chosen, by_rejected]).abs().max())
    assert by_chosen[0] >= by_chosen[1] - rounding
    assert by_rejected[0] <= by_rejected[1] + rounding


@pytest.mark.parametrize("term", MONOTONE, ids=name)
def test_near_the_reference_a_likelier_chosen_answer_costs_less(term: Loss) -> None:
    loss, by_chosen, by_rejected = gradients(term, logps(-2.0, -1.0), logps(-1.5, -1.5))
    assert loss[0] > loss[1]
    assert (by_chosen < 0).all()
    assert (by_rejected > 0).all()


PAIR = st.tuples(st.floats(-60, -0.1), st.floats(-60, -0.1), st.integers(1, 30), st.integers(1, 30))
STEP = st.lists(PAIR, min_size=2, max_size=8)
Pairs = list[tuple[float, float, int, int]]


def step(terms: list[Loss], pairs: Pairs, totals: StepTotals) -> Tensor:
    """Per-pair losses in float64 against a reference that finds every token equally likely."""
    chosen, rejected, chosen_tokens, rejected_tokens = (
        logps(*side, dtype=torch.float64) for side in zip(*pairs, strict=True)
    )
    counts = PairCounts(chosen_tokens, rejected_tokens)
    reference = PairLogps(-2 * chosen_tokens, -2 * rejected_tokens)
    return combine(terms, PairLogps(chosen, rejected), reference, counts, totals)[0].per_pair_B


def totals_of(pairs: Pairs) -> StepTotals:
    return StepTotals(len(pairs), sum(pair[2] for pair in pairs))


@pytest.mark.parametrize("term", VARIANTS, ids=name)
@FEW
@given(pairs=STEP, data=st.data())
def test_neither_order_nor_micro_batches_change_the_result(term: Loss, pairs: Pairs, data: st.DataObject) -> None:
    totals = totals_of(pairs)
    whole = step([term], pairs, totals)
    order = data.draw(st.permutations(range(len(pairs))))
    torch.testing.assert_close(step([term], [pairs[i] for i in order], totals), whole[order])
    cut = data.draw(st.integers(1, len(pairs) - 1))
    parts = torch.cat([step([term], pairs[:cut], totals), step([term], pairs[cut:], totals)])
    torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("term", VARIANTS, ids=name)
@FEW
@given(pairs=STEP)
def test_weight_two_is_every_pair_twice_over_the_same_totals(term: Loss, pairs: Pairs) -> None:
    totals = totals_of(pairs)
    doubled = term.model_copy(update={"weight": 2 * term.weight})
    torch.testing.assert_close(step([doubled], pairs, totals).sum(), step([term], pairs * 2, totals).sum())


TERMS = st.lists(st.sampled_from(VARIANTS), min_size=1, max_size=5, unique_by=lambda term: term.type)


@FEW
@given(terms=TERMS, weights=st.lists(st.floats(0.01, 100), min_size=5, max_size=5), pairs=STEP)
def test_the_total_is_the_weighted_sum_of_each_term_alone(
    terms: list[Loss], weights: list[float], pairs: Pairs
) -> None:
    totals = totals_of(pairs)
    weighted = [term.model_copy(update={"weight": weight}) for term, weight in zip(terms, weights, strict=False)]
    alone = [term.weight * step([term.model_copy(update={"weight": 1.0})], pairs, totals) for term in weighted]
    torch.testing.assert_close(step(weighted, pairs, totals), torch.stack(alone).sum(0))
