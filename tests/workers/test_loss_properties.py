"""What holds for every loss at any log-probs: finite, monotone where it says so, a sum over pairs and over terms."""

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from service.spec.losses import DECLARATIONS, Divergence, Loss, LossKind, MarginLoss, PairRatioLoss, WeightedRatioLoss
from service.spec.shapes import DataShape
from tests.workers.loss_inputs import facts, logps
from workers.losses import Facts, Logps, StepTotals, combine

FEW = settings(max_examples=15)  # many variants, on machines that are busy

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
    LossKind.BCO_PAIR: [{"reward_baseline": "running_mean"}],
    LossKind.BCO: [{"reward_baseline": "none"}],
    LossKind.KTO: [{"desirable_weight": 0.5, "undesirable_weight": 1.5}],
    LossKind.AOT: [{"label_smoothing": 0.3}],
    LossKind.AOT_UNPAIRED: [{"label_smoothing": 0.3}],
    LossKind.ORPO: [{"nll_tokens": "all"}, {"per_sequence": True}, {"nll_tokens": "all", "per_sequence": True}],
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
        if issubclass(declared, PairRatioLoss):
            options.append({"ld_alpha": 0.3})
        if issubclass(declared, WeightedRatioLoss):
            options.append({"wpo": True})
        found += [declared.model_validate(chosen) for chosen in options]
    return found


VARIANTS = variants()


def name(term: object) -> str:
    said = {key: said for key, said in vars(term).items() if key not in ("type", "weight")}
    return f"{vars(term)['type']}-{said}"


def gradients(term: Loss, chosen: Tensor, rejected: Tensor, tokens: float = 1) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of each row and its gradient by both answers' log-probs, against a reference of zeros. Unpaired losses
    see the chosen answers as desirable and the rejected ones as not, each beside an answer to another prompt."""
    chosen, rejected = chosen.clone().requires_grad_(), rejected.clone().requires_grad_()
    if term.type.data_shape is DataShape.UNPAIRED:
        answers = torch.cat([chosen, rejected])
        policy = Logps(torch.stack([answers, answers.detach().roll(1)], 1))
        labels = [True] * len(chosen) + [False] * len(rejected)
        known = facts([[tokens, tokens]] * len(answers), desirable=labels, dtype=torch.float32)
    else:
        policy = Logps(
            torch.stack([chosen, rejected], 1),
            shared_BK=torch.stack([chosen, rejected], 1) / 2,
            prompt_B=torch.zeros_like(chosen),
            certainty_BK=torch.full((len(chosen), 2), -0.5),
        )
        known = facts([[tokens, tokens]] * len(chosen), dtype=torch.float32)
    output = combine([term], policy, policy.zeros(), known, StepTotals.of(known))
    output.per_example_B.sum().backward()
    none = torch.zeros_like(chosen)
    return (
        output.per_example_B.detach(),
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


OF_A_FALLING_SHAPE = {
    *("sigmoid", "hinge", "robust", "sigmoid_norm", "bco_pair", "apo_zero", "kto_pair"),
    *("simpo", "alphapo", "plackett_luce"),
}
MONOTONE = [
    term
    for term in VARIANTS
    if term.type in OF_A_FALLING_SHAPE and not term.couples_rows and not getattr(term, "label_smoothing", 0)
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


ROW = st.tuples(st.floats(-60, -0.1), st.floats(-60, -0.1), st.integers(1, 30), st.integers(1, 30), st.booleans())
STEP = st.lists(ROW, min_size=2, max_size=8)
Rows = list[tuple[float, float, int, int, bool]]
Step = tuple[Logps, Logps, Facts]


def step_of(term: Loss, rows: Rows, weights: list[float] | None = None) -> Step:
    """In float64, with a reference that finds every token equally likely."""
    first, second, first_tokens, second_tokens, labels = zip(*rows, strict=True)
    sums_BK = torch.stack([logps(*first), logps(*second)], 1)
    unpaired = term.type.data_shape is DataShape.UNPAIRED
    known = facts(
        list(zip(first_tokens, second_tokens, strict=True)),
        weights=weights,
        margins=[0.1 * n for n in first_tokens],
        desirable=list(labels) if unpaired else None,
        prompt=list(second_tokens),
    )
    policy = Logps(sums_BK, sums_BK / 2, prompt_B=logps(*second), certainty_BK=sums_BK / 60)
    return policy, Logps(-2 * known.counts_BK, -known.counts_BK), known


def per_row(terms: list[Loss], step: Step, totals: StepTotals) -> Tensor:
    policy, reference, known = step
    return combine(terms, policy, reference, known, totals).per_example_B


def mean(terms: list[Loss], step: Step) -> Tensor:
    totals = StepTotals.of(step[2])
    return per_row(terms, step, totals).sum() / totals.weight


def part(step: Step, rows: Tensor) -> Step:
    policy, reference, known = step
    return (
        Logps(*(None if x is None else x[rows] for x in vars(policy).values())),
        Logps(*(None if x is None else x[rows] for x in vars(reference).values())),
        known.at(rows),
    )


@pytest.mark.parametrize("term", VARIANTS, ids=name)
@FEW
@given(rows=STEP, data=st.data())
def test_neither_order_nor_micro_batches_change_the_result(term: Loss, rows: Rows, data: st.DataObject) -> None:
    step = step_of(term, rows)
    totals = StepTotals.of(step[2])
    whole = per_row([term], step, totals)
    order = torch.tensor(data.draw(st.permutations(range(len(rows)))))
    shuffled = per_row([term], part(step, order), totals)
    if term.couples_rows:  # such a loss is never cut up; the trainer's tests cut up its log-probs
        torch.testing.assert_close(shuffled.sum(), whole.sum())
        return
    torch.testing.assert_close(shuffled, whole[order])
    cut = data.draw(st.integers(1, len(rows) - 1))
    places = torch.arange(len(rows))
    parts = [per_row([term], part(step, one), totals) for one in (places[:cut], places[cut:])]
    torch.testing.assert_close(torch.cat(parts), whole)


@pytest.mark.parametrize("term", [term for term in VARIANTS if term.uses_weight], ids=name)
@FEW
@given(rows=STEP, data=st.data())
def test_a_row_of_weight_two_is_the_row_twice(term: Loss, rows: Rows, data: st.DataObject) -> None:
    twice = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    weighted = mean([term], step_of(term, rows, [2.0 if double else 1.0 for double in twice]))
    repeated = [row for row, double in zip(rows, twice, strict=True) for _ in range(1 + double)]
    torch.testing.assert_close(weighted, mean([term], step_of(term, repeated)))


@FEW
@given(data=st.data(), weights=st.lists(st.floats(0.01, 100), min_size=5, max_size=5), rows=STEP)
def test_the_total_is_the_weighted_sum_of_each_term_alone(
    data: st.DataObject, weights: list[float], rows: Rows
) -> None:
    shape = data.draw(st.sampled_from([DataShape.PAIRS, DataShape.UNPAIRED, DataShape.RANKED]))
    fitting = [term for term in VARIANTS if term.type.data_shape in (shape, DataShape.ANSWERS)]
    terms = data.draw(st.lists(st.sampled_from(fitting), min_size=1, max_size=5, unique_by=lambda term: term.type))
    weighted = [term.model_copy(update={"weight": weight}) for term, weight in zip(terms, weights, strict=False)]
    step = step_of(next((term for term in terms if term.type.data_shape is shape), terms[0]), rows)
    alone = [term.weight * mean([term.model_copy(update={"weight": 1.0})], step) for term in weighted]
    torch.testing.assert_close(mean(weighted, step), torch.stack(alone).sum())


@FEW
@given(rewards=st.lists(st.lists(LOG_RATIO, min_size=2, max_size=6), min_size=1, max_size=5))
def test_rankings_of_any_length_are_finite_at_any_log_ratio(rewards: list[list[float]]) -> None:
    longest = max(map(len, rewards))
    sums_BK = torch.tensor([row + [0.0] * (longest - len(row)) for row in rewards]).requires_grad_()
    known = facts([[1.0] * len(row) + [0.0] * (longest - len(row)) for row in rewards], dtype=torch.float32)
    term = DECLARATIONS[LossKind.PLACKETT_LUCE].model_validate({})
    policy = Logps(sums_BK)
    loss_B = combine([term], policy, policy.zeros(), known, StepTotals.of(known)).per_example_B
    loss_B.sum().backward()
    assert torch.isfinite(loss_B).all()
    assert sums_BK.grad is not None
    assert torch.isfinite(sums_BK.grad).all()
