"""What both sides of the comparison with TRL start from: weights, adapter, pairs and their order.

Weights are drawn from NumPy's legacy generator, whose stream is frozen for good: torch's differs between processors.
"""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from service.spec import AlignmentJob
from service.spec.rows import Row
from tests.models import TINY, make_tokenizer

HH = Path(__file__).parents[1] / "data" / "hh_rlhf_harmless_base_test.jsonl.gz"
CURVES = Path(__file__).parent / "trl_curves.json"

NUM_PAIRS = 40
NUM_STEPS = 50
BATCH_SIZE = 8
LORA_RANK = 4
LORA_ALPHA = 8
BETA = 0.1
SFT_WEIGHT = 0.5
RATES = {"full": 5e-4, "lora": 5e-3}

LOSSES: dict[str, list[dict[str, Any]]] = {
    "sigmoid": [{"type": "sigmoid", "beta": BETA}],
    "ipo": [{"type": "ipo", "beta": BETA}],
    "sigmoid+sft": [{"type": "sigmoid", "beta": BETA}, {"type": "sft", "weight": SFT_WEIGHT}],
}


def make_job(losses: str, method: str) -> AlignmentJob:
    """Ours, set to what TRL does: a constant rate from the first step on, no weight decay, gradients of norm 1."""
    lora = {"type": "lora", "rank": LORA_RANK, "alpha": LORA_ALPHA}
    return AlignmentJob.model_validate(
        {
            "model": "/tiny",
            "data": {"train": "file-" + "0" * 21},
            "losses": LOSSES[losses],
            "training": {
                "method": lora if method == "lora" else {"type": "full"},
                "epochs": NUM_STEPS * BATCH_SIZE / NUM_PAIRS,
                "batch_size": BATCH_SIZE,
                "learning_rate": RATES[method],
                "schedule": "constant",
                "warmup_ratio": 0,
                "precision": "float32",
                "micro_batch_tokens": 512,  # several micro-batches a step, where TRL has one
            },
            "evaluation": {"held_out_fraction": 0},
        }
    )


def make_rows() -> list[Row]:
    """The shortest pairs of HH-RLHF in the sample, cut before the last answer."""
    lines = [json.loads(line) for line in gzip.decompress(HH.read_bytes()).splitlines()]
    lines.sort(key=lambda line: (len(line["chosen"]) + len(line["rejected"]), line["chosen"]))
    rows: list[Row] = []
    for line in lines:
        prompt, mark, chosen = line["chosen"].rpartition("\n\nAssistant:")
        if line["rejected"].startswith(prompt + mark) and chosen.strip():
            rejected = line["rejected"].removeprefix(prompt + mark)
            if rejected.strip() and "\n\nHuman:" not in rejected and rejected != chosen:
                rows.append(Row(len(rows) + 1, prompt + mark, (chosen, rejected)))
        if len(rows) == NUM_PAIRS:
            return rows
    raise AssertionError(f"only {len(rows)} usable pairs")


def make_start(directory: Path) -> Path:
    """The tiny model at `directory`, and the adapter that LoRA starts from in `directory`/adapter."""
    random = np.random.RandomState(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **TINY))
    _draw(model, random)
    model.save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    config = LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    _draw(adapted, random)
    adapted.save_pretrained(directory / "adapter")
    return directory


def digest(ids: list[list[int]]) -> str:
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def _draw(model: nn.Module, random: np.random.RandomState) -> None:
    """Matrices at random, the B of each adapter zero as ever; norms stay one."""
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad and parameter.ndim == 2 and "lora_B" not in name:
            parameter.data = torch.from_numpy(random.standard_normal(tuple(parameter.shape)) * 0.1).float()
