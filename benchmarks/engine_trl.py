"""TRL's side of the engine's benchmarks; runs in an environment with trl==1.16.0, which `make bench-engine` makes.

`reference`: what `precompute_ref_log_probs` runs for each batch. `train`: the trainer's own loop, one optimizer step of
eight pairs a block, references precomputed. `--compact` lets it score completion positions only, as it does by itself
on a GPU; without it, its CPU path scores every position.
"""

import sys
import tempfile
import threading
from pathlib import Path

import torch
from datasets import load_dataset
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl.trainer import utils

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.engine_side import parser, serve

BATCH = 8


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--compact", action="store_true")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.compact:
        utils._use_triton = lambda _: True

    with tempfile.TemporaryDirectory() as output:
        config = DPOConfig(
            output_dir=output,
            per_device_train_batch_size=BATCH,
            max_steps=1,
            max_length=None,
            bf16=arguments.precision == "bf16",
            use_cpu=True,
            precompute_ref_log_probs=arguments.task == "train",
            gradient_checkpointing=arguments.checkpointing,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        data = load_dataset("json", data_files=str(arguments.rows), split="train", cache_dir=output)
        model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
        trainer = DPOTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer)
        if arguments.task == "reference":
            loader = DataLoader(trainer.train_dataset, batch_size=BATCH, collate_fn=trainer.data_collator)
            reference = trainer.ref_model.eval()
            batches = list(loader)
            serve(lambda: [trainer.compute_ref_log_probs(reference, batch) for batch in batches])
        else:
            train(trainer)


def train(trainer: DPOTrainer) -> None:
    """One step of the trainer's own: forward, backward, clipping, optimizer; on the same eight pairs each time."""
    trainer.train_dataset = trainer.train_dataset.select(range(BATCH))
    trainer.args.logging_steps = 10**9
    trainer.args.max_steps = 10**6
    trainer.args.num_train_epochs = 10**6
    steps = trainer_steps(trainer)
    serve(lambda: next(steps))


def trainer_steps(trainer: DPOTrainer):  # type: ignore[no-untyped-def] # untyped like all of TRL
    """Lets `trainer.train()` run in a thread of its own, one step at each `next`."""
    go, done = threading.Semaphore(0), threading.Semaphore(0)

    class Steps(TrainerCallback):
        def on_step_begin(self, *_: object, **__: object) -> None:
            go.acquire()

        def on_step_end(self, *_: object, **__: object) -> None:
            done.release()

    trainer.add_callback(Steps())
    threading.Thread(target=trainer.train, daemon=True).start()
    while True:
        go.release()
        done.acquire()
        yield


if __name__ == "__main__":
    main()
