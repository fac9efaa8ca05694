"""Loss and gradient against the log-ratio margin, sampled for the catalogue's plots.

The control plane has no torch, so the points lie in a file beside the catalogue. Write it anew after a change to a
loss or a default (a test tells when it is stale):

    python -m workers.losses.curves
"""

import json

import torch

from service.spec.catalogue import CURVES, Curve, LossCurves
from service.spec.losses import DECLARATIONS, Loss, LossKind
from service.spec.shapes import DataShape
from workers.losses import Facts, Logps, StepTotals, combine

TOKENS = 10
LOGP = -30.0  # of each answer under the reference; the policy's are d/2 above and below
MARGINS = torch.arange(-40, 41, 2, dtype=torch.float64)


def curve(term: Loss) -> Curve:
    """The term's loss at each margin, and its derivative by the margin."""
    points = [_point(term, float(margin)) for margin in MARGINS]
    return Curve(loss=[_digits(loss) for loss, _ in points], gradient=[_digits(slope) for _, slope in points])


def _point(term: Loss, at: float) -> tuple[float, float]:
    """A step of one pair; or of a desirable and an undesirable answer, whose KL is zero."""
    margin = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    answers = torch.stack([LOGP + margin / 2, LOGP - margin / 2])
    unpaired = term.type.data_shape is DataShape.UNPAIRED
    policy = Logps(torch.stack([answers, torch.full_like(answers, LOGP)], 1) if unpaired else answers[None])
    ones_B = torch.ones(len(policy.sums_BK), dtype=torch.float64)
    facts = Facts(
        counts_BK=torch.full_like(policy.sums_BK, TOKENS),
        weights_B=ones_B,
        margins_B=torch.zeros_like(ones_B),
        prompt_counts_B=torch.zeros_like(ones_B),
        desirable_B=torch.tensor([True, False]) if unpaired else None,
    )
    reference = Logps(torch.full_like(policy.sums_BK, LOGP))
    totals = StepTotals.of(facts)
    output = combine([term], policy, reference, facts, totals)
    loss = output.per_example_B.sum() / totals.weight
    (slope,) = torch.autograd.grad(loss, margin)
    return float(loss.detach()), float(slope)


def _digits(value: float) -> float:
    return float(f"{value:.6g}")


def curves() -> LossCurves:
    """Those of every loss with its default options."""
    sampled = {kind: curve(declared.model_validate({})) for kind, declared in DECLARATIONS.items()}  # type: ignore[arg-type] # each is a Loss
    return LossCurves(margins=MARGINS.tolist(), curves=sampled)


def main() -> None:
    sampled = curves()
    lines = [f"{json.dumps(kind.value)}: {sampled.curves[kind].model_dump_json()}" for kind in LossKind]
    body = ",\n".join(lines)
    CURVES.write_text(f'{{"margins": {json.dumps(sampled.margins)},\n"curves": {{\n{body}\n}}}}\n')


if __name__ == "__main__":
    main()
