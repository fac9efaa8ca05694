"""Records 50 optimizer steps of TRL's DPOTrainer into trl_curves.json, for `test_trl_curves.py` to repeat with ours.

TRL is no dependency of the service, so it has an environment of its own:

    python -m venv trl-env
    trl-env/bin/pip install trl==1.16.0 torch==2.13.0 peft==0.21.2 pydantic
    trl-env/bin/python -m tests.parity.record_trl        # from the root of the repository; half a minute of one core

Matched by configuration: float32, a constant rate without warm-up, AdamW without weight decay, gradients clipped at
norm 1 (the defaults of both), one micro-batch a step (TRL's `sft` is a token mean over the micro-batch, ours over the
step), and the order of the pairs, which is ours. TRL appends the EOS token to answers, as ours does.
"""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from tests.parity.start import (
    BATCH_SIZE,
    BETA,
    CURVES,
    LOSSES,
    NUM_STEPS,
    RATES,
    SFT_WEIGHT,
    digest,
    make_job,
    make_rows,
    make_start,
)
from workers.data.order import TrainingOrder

TRL_LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid": {"loss_type": ["sigmoid"]},
    "ipo": {"loss_type": ["ipo"]},
    "sigmoid+sft": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, SFT_WEIGHT]},
}


class Recorder(DPOTrainer):
    """Takes the pairs as they come, and keeps each step's loss as it is, where the log rounds it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.losses: list[float] = []
        super().__init__(*args, **kwargs)

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        self.losses.append(float(loss))
        return loss


def record(losses: str, method: str, start: Path) -> tuple[list[float], str]:
    """The loss of each step, and a digest of the token ids that TRL trained on."""
    rows = make_rows()
    order = TrainingOrder(make_job(losses, method), range(len(rows)))
    assert order.num_steps == NUM_STEPS
    visits = [rows[i] for step in range(NUM_STEPS) for i in order.step(step)]
    data = Dataset.from_list(
        [{"prompt": row.prompt, "chosen": row.answers[0], "rejected": row.answers[1]} for row in visits]
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    if method == "lora":
        model = PeftModel.from_pretrained(model, start / "adapter", is_trainable=True)
    with tempfile.TemporaryDirectory() as output:
        config = DPOConfig(
            output_dir=output,
            beta=BETA,
            **TRL_LOSSES[losses],
            learning_rate=RATES[method],
            lr_scheduler_type="constant",
            max_steps=NUM_STEPS,
            per_device_train_batch_size=BATCH_SIZE,
            max_length=None,
            disable_dropout=True,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Recorder(
            model=model, args=config, train_dataset=data, processing_class=AutoTokenizer.from_pretrained(start)
        )
        ids = [
            list(one[column])
            for one in trainer.train_dataset
            for column in ("prompt_ids", "chosen_ids", "rejected_ids")
        ]
        trainer.train()
    assert len(trainer.losses) == NUM_STEPS
    return trainer.losses, digest(ids)


def main() -> None:
    torch.set_num_threads(1)
    curves = []
    with tempfile.TemporaryDirectory() as directory:
        start = make_start(Path(directory))
        for losses in LOSSES:
            for method in RATES:
                per_step, ids = record(losses, method, start)
                curves.append({"losses": losses, "method": method, "ids_sha256": ids, "per_step": per_step})
                print(f"{losses} {method}: {per_step[0]:.4f} -> {per_step[-1]:.4f}")
    versions = {name: version(name) for name in ("trl", "torch", "transformers", "peft", "numpy")}
    CURVES.write_text(json.dumps({"versions": versions, "curves": curves}, indent=1) + "\n")


if __name__ == "__main__":
    main()
