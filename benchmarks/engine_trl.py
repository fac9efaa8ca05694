"""TRL's side of the engine's benchmarks; runs in an environment with trl==1.16.0, which the make targets make.

`reference`: what `precompute_ref_log_probs` runs for each batch. `train`: the trainer's own loop, one optimizer step of
eight pairs a block, references precomputed. `--compact` lets it score completion positions only, as it does by itself
on a GPU; without it, its CPU path scores every position.
"""

import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from datasets import load_dataset
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl.trainer import utils

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.engine_side import BATCH, Work, device, run_side


def make_block(work: Work, *, compact: bool = False) -> Callable[[], object]:
    if compact:
        utils._use_triton = lambda _: True
    scratch = tempfile.mkdtemp(dir=work.rows.parent)  # which goes with its parent
    config = DPOConfig(
        output_dir=scratch,
        per_device_train_batch_size=BATCH,
        max_steps=1,
        max_length=None,
        bf16=work.precision == "bf16",
        use_cpu=device().type == "cpu",
        precompute_ref_log_probs=work.task == "train",
        gradient_checkpointing=work.checkpointing,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    data = load_dataset("json", data_files=str(work.rows), split="train", cache_dir=scratch)
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(work.model)
    trainer = DPOTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer)
    if work.task == "reference":
        loader = DataLoader(trainer.train_dataset, batch_size=BATCH, collate_fn=trainer.data_collator)
        reference = trainer.ref_model.eval()
        batches = [trainer._prepare_inputs(batch) for batch in loader]
        return lambda: [trainer.compute_ref_log_probs(reference, batch) for batch in batches]
    trainer.train_dataset = trainer.train_dataset.select(range(BATCH))  # the same eight pairs each time
    trainer.args.logging_steps = 10**9
    trainer.args.max_steps = 10**6
    trainer.args.num_train_epochs = 10**6
    steps = trainer_steps(trainer)
    return lambda: next(steps)


def trainer_steps(trainer: DPOTrainer):  # type: ignore[no-untyped-def] # untyped like all of TRL
    """Lets `trainer.train()`, with its forward, backward, clipping and optimizer, run in a thread of its own, one step
    at each `next`; closed, it makes one step more and ends."""
    go, done = threading.Semaphore(0), threading.Semaphore(0)
    over, ended = threading.Event(), threading.Event()
    failures: list[torch.OutOfMemoryError] = []

    def train() -> None:
        try:
            trainer.train()
        except torch.OutOfMemoryError as error:
            failures.append(error)
        finally:  # whatever it was, nobody waits for the step
            ended.set()
            done.release()

    class Steps(TrainerCallback):
        def on_step_begin(self, *_: object, **__: object) -> None:
            go.acquire()

        def on_step_end(self, _arguments, _state, control, **_: object) -> None:  # type: ignore[no-untyped-def]
            control.should_training_stop = over.is_set()
            done.release()

    trainer.add_callback(Steps())
    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    try:
        while True:
            go.release()
            done.acquire()
            if failures:
                raise failures[0]
            if ended.is_set():
                raise SystemExit("TRL's trainer has ended")
            yield
    finally:  # a thread that waited for ever would keep the model's memory
        over.set()
        go.release()
        thread.join()


if __name__ == "__main__":
    run_side(__doc__, make_block, "--compact")
