"""Loss and gradient against the log-ratio margin, sampled for the catalogue's plots.

The control plane has no torch, so the points lie in a file beside the catalogue. Write it anew after a change to a
loss or a default (a test tells when it is stale):

    python -m workers.losses.curves
"""

import json

import torch
from torch import Tensor

from service.spec.catalogue import CURVES, Curve, LossCurves
from service.spec.losses import DECLARATIONS, Loss, LossKind
from workers.losses import PairCounts, PairLogps, StepTotals, combine

TOKENS = 10
LOGP = -30.0  # of each answer under the reference; the policy's are d/2 above and below
MARGINS = torch.arange(-40, 41, 2, dtype=torch.float64)


def curve(term: Loss) -> Curve:
    """The term's loss at each margin, and its derivative by the margin."""
    margins_B = MARGINS.clone().requires_grad_()
    policy = PairLogps(LOGP + margins_B / 2, LOGP - margins_B / 2)
    same_B = torch.full_like(MARGINS, LOGP)
    tokens_B = torch.full_like(MARGINS, TOKENS)
    totals = StepTotals(len(MARGINS), TOKENS * len(MARGINS))
    output, _ = combine([term], policy, PairLogps(same_B, same_B), PairCounts(tokens_B, tokens_B), totals)
    (gradient_B,) = torch.autograd.grad(output.per_pair_B.sum(), margins_B)
    return Curve(loss=_digits(output.per_pair_B), gradient=_digits(gradient_B))


def _digits(values_B: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values_B.tolist()]


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
