"""`ld_alpha`, `wpo` and the f-divergences give TRL's numbers (see record_trl_options.py)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from service.spec.losses import DECLARATIONS, LossKind
from tests.workers.loss_inputs import facts
from workers.losses import Logps, StepTotals, combine

RECORDED = json.loads(Path(__file__).with_name("trl_option_cases.json").read_text())
DIVERGENCES = {"forward_kl": "forward_kl", "js_divergence": "js"}


def ours(options: dict[str, Any]) -> dict[str, Any]:
    said = {"ld_alpha": options.get("ld_alpha"), "wpo": options.get("use_weighting", False)}
    if "f_divergence_type" in options:
        said["f_divergence"] = DIVERGENCES[options["f_divergence_type"]]
    return said


def name(case: Any) -> str:
    return f"{case['loss']}-{case['options']}"


@pytest.mark.parametrize("case", RECORDED["cases"], ids=name)
def test_value_and_slope_by_every_token_equal_trls(case: dict[str, Any]) -> None:
    declared = DECLARATIONS[LossKind(case["loss"])]
    options = {"beta": RECORDED["beta"]} | {k: v for k, v in ours(case["options"]).items() if v}
    if "ld_alpha" in case["options"]:
        options["ld_alpha"] = case["options"]["ld_alpha"]
    if "label_smoothing" in declared.model_fields and case["loss"] != "sigmoid":  # TRL's sigmoid ignores it
        options["label_smoothing"] = RECORDED["label_smoothing"]
    term: Any = declared.model_validate(options)

    rows = RECORDED["rows"]
    policy = [torch.tensor(row["policy"], dtype=torch.float64).requires_grad_() for row in rows]
    reference = [torch.tensor(row["reference"], dtype=torch.float64) for row in rows]
    squares = [torch.tensor(row["log_sum_sq"], dtype=torch.float64) for row in rows]
    counts = list(zip(*(map(len, side) for side in (policy[:4], policy[4:])), strict=True))

    def by_pair(values: list[Tensor]) -> Tensor:
        return torch.stack([torch.stack(values[:4]), torch.stack(values[4:])], 1)

    def shared(tokens: list[Tensor]) -> Tensor:
        return by_pair([one[: min(counts[i % 4])].sum() for i, one in enumerate(tokens)])

    certainty = by_pair([(p.detach() - s).mean() for p, s in zip(policy, squares, strict=True)])
    seen = Logps(by_pair([one.sum() for one in policy]), shared(policy), certainty_BK=certainty)
    known = facts(counts)
    totals = StepTotals.of(known)
    against = Logps(by_pair([one.sum() for one in reference]), shared(reference))
    loss = combine([term], seen, against, known, totals).per_example_B.sum() / totals.weight
    loss.backward()

    tolerance = 1e-6 if case["loss"] == "exo_pair" else 1e-9  # TRL takes exo_pair's logarithms in float32
    assert loss.item() == pytest.approx(case["value"], rel=tolerance)
    for tokens, slope in zip(policy, case["slope"], strict=True):
        assert tokens.grad is not None
        assert tokens.grad.tolist() == pytest.approx(slope, rel=tolerance, abs=tolerance * 1e-3)
