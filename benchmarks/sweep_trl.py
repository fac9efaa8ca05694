"""One run of the peer in the sweep: a script as its user would write it, in a process of its own.

Runs in the environment that `make .venv-trl/.installed` makes. The last line it prints is JSON: the seconds of
`precompute_ref_log_probs` and of `train()`, and the loss of the first step.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer
from trl.trainer import utils


class Timed(DPOTrainer):  # type: ignore[misc] # untyped like all of TRL
    precompute_s = 0.0

    def _precompute_ref_logps(self, *arguments: object) -> object:
        started = time.perf_counter()
        found = super()._precompute_ref_logps(*arguments)
        self.precompute_s = time.perf_counter() - started
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--loss", required=True)
    parser.add_argument("--beta", type=float, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--precision", choices=["float32", "bf16"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--compact", action="store_true", help="score completions only, as it does itself on a GPU")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.compact:
        utils._use_triton = lambda _: True

    config = DPOConfig(
        output_dir=str(arguments.output),
        loss_type=[arguments.loss],
        beta=arguments.beta,
        precompute_ref_log_probs=True,
        per_device_train_batch_size=arguments.batch,
        learning_rate=arguments.learning_rate,
        num_train_epochs=1,
        max_length=None,
        gradient_checkpointing=False,
        bf16=arguments.precision == "bf16",
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Timed(
        model=AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32),
        args=config,
        train_dataset=load_dataset("json", data_files=str(arguments.rows), split="train"),
        processing_class=AutoTokenizer.from_pretrained(arguments.model),
    )
    started = time.perf_counter()
    trainer.train()
    train_s = time.perf_counter() - started
    trainer.save_model()
    first_loss = float(trainer.state.log_history[0]["loss"])
    print(json.dumps({"precompute_s": trainer.precompute_s, "train_s": train_s, "first_loss": first_loss}))


if __name__ == "__main__":
    main()
