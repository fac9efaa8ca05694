"""Records what TRL 1.16's DPOTrainer computes with `ld_alpha`, `use_weighting` and the f-divergences, which the other
recorded cases lack, into trl_option_cases.json beside this file. Run it in an environment with trl==1.16.0:

    python tests/parity/record_trl_options.py

The trainer's own `_compute_loss` runs, in float64, on a model that answers with given log-probs.
"""

import itertools
import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from trl import DPOTrainer

OUT = Path(__file__).with_name("trl_option_cases.json")
PROMPT = 2
LENGTHS = [(7, 5), (3, 9), (12, 12), (6, 4)]  # counted tokens of the chosen and the rejected answers
LOSSES = [
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sigmoid_norm"),
]
OPTIONS: list[dict[str, Any]] = [
    {"ld_alpha": 0.0},
    {"ld_alpha": 0.5},
    {"use_weighting": True},
    {"ld_alpha": 0.3, "use_weighting": True},
    {"f_divergence_type": "forward_kl"},
    {"f_divergence_type": "js_divergence"},
]
WITH_DIVERGENCE = {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop"}


def main() -> None:
    torch.manual_seed(0)
    width = PROMPT + max(map(max, LENGTHS))
    lengths = [n for side in zip(*LENGTHS, strict=True) for n in side]  # the chosen answers, then the rejected
    mask = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, n in enumerate(lengths):
        mask[row, PROMPT : PROMPT + n] = 1
    counted = mask[:, 1:].bool()
    policy = -4 * torch.rand(counted.shape, dtype=torch.float64) * counted  # models give 0 elsewhere
    reference = policy + torch.randn(counted.shape, dtype=torch.float64) * 0.6 * counted
    log_sum_sq = -3 * torch.rand(counted.shape, dtype=torch.float64) * counted

    cases = []
    for loss, options in itertools.product(LOSSES, OPTIONS):
        if options.get("use_weighting") and loss in ("aot", "aot_unpaired", "hinge"):
            continue  # refused, or an error of its own (a relu changed in place)
        if "f_divergence_type" in options and loss not in WITH_DIVERGENCE:
            continue
        value, slope = compute(loss, options, policy, reference, log_sum_sq, mask)
        cases.append({"loss": loss, "options": options, "value": value, "slope": slope})
    rows = [
        {
            "policy": policy[row][counted[row]].tolist(),
            "reference": reference[row][counted[row]].tolist(),
            "log_sum_sq": log_sum_sq[row][counted[row]].tolist(),
        }
        for row in range(len(lengths))
    ]
    OUT.write_text(json.dumps({"beta": 0.1, "label_smoothing": 0.1, "rows": rows, "cases": cases}) + "\n")


def compute(loss: str, options: dict[str, Any], policy: Any, reference: Any, log_sum_sq: Any, mask: Any) -> Any:
    """The trainer's loss, and its slope by each of the policy's counted token log-probs, row after row."""
    leaf = policy.clone().requires_grad_()
    trainer = DPOTrainer.__new__(DPOTrainer)
    asked = {"ld_alpha": None, "use_weighting": False, "f_divergence_type": "reverse_kl"} | options
    trainer.__dict__ |= {
        **asked,
        "f_alpha_divergence_coef": 0.5,
        "beta": 0.1,
        "label_smoothing": 0.1,
        "loss_types": [loss],
        "loss_weights": [1.0],
        "precompute_ref_logps": False,
        "aux_loss_enabled": False,
        "ref_model": lambda **_: SimpleNamespace(log_probs=reference),
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "args": SimpleNamespace(discopop_tau=0.05, gradient_checkpointing_kwargs=None),
        "accelerator": SimpleNamespace(device=torch.device("cpu"), gather_for_metrics=lambda x: x, gather=lambda x: x),
    }
    zeros = torch.zeros_like(policy)
    outputs = SimpleNamespace(
        log_probs=leaf, log_sum_sq_probs=log_sum_sq, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool()
    )
    inputs = {"input_ids": mask, "attention_mask": mask, "completion_mask": mask}
    trainer.model = Answering(outputs)
    value = trainer._compute_loss(trainer.model, inputs, return_outputs=False)
    value.backward()
    counted = mask[:, 1:].bool()
    return value.item(), [leaf.grad[row][counted[row]].tolist() for row in range(len(mask))]


class Answering(torch.nn.Module):
    is_gradient_checkpointing = False

    def __init__(self, outputs: SimpleNamespace) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, **_: Any) -> SimpleNamespace:
        return self.outputs


if __name__ == "__main__":
    main()
