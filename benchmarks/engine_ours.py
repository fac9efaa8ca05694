"""Our side of the engine's benchmarks: the scorer's loop, or the trainer's step with the scores at hand."""

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.engine_side import BATCH, Work, device, run_side
from service.spec import AlignmentJob
from service.spec.rows import Row, RowNeeds, read_rows
from workers.data.encode import TokenEncoder
from workers.data.examples import Example
from workers.data.order import TrainingOrder
from workers.data.tokenizer import load_tokenizer
from workers.engine.parallel import Rank
from workers.engine.policy import load_policy
from workers.engine.trainer import Trainer
from workers.reference.scorer import load, score
from workers.sources import Weights

TOKENS = 4096


def make_block(work: Work, micro_batch_tokens: int = TOKENS, *, compiled: bool = False) -> Callable[[], object]:
    job = AlignmentJob.model_validate(
        {
            "model": str(work.model),
            "data": {"train": "file-" + "0" * 21, "max_length": 4096},
            "training": {
                "batch_size": BATCH,
                "precision": work.precision,
                "micro_batch_tokens": micro_batch_tokens,
                "gradient_checkpointing": work.checkpointing,
                "compile": compiled,
            },
            "evaluation": {"held_out_fraction": 0},
        }
    )
    examples = read(job, work.model, work.rows)
    weights, precision = Weights(work.model), job.training.precision
    if work.task == "reference":
        lm = load(weights, precision, compiled=compiled)
        sys.stderr.write(f"ours takes {lm.paths}\n")
        return lambda: score(lm, examples, precision, micro_batch_tokens)
    policy = load_policy(job, weights, Rank(), device())
    sys.stderr.write(f"ours takes {policy.lm.paths}\n")
    examples = examples[:BATCH]
    scores = score(policy.lm, examples, precision, micro_batch_tokens)
    trainer = Trainer(job, policy.model, policy.lm, TrainingOrder(job, range(len(examples))), Rank())
    return lambda: trainer.step(0, examples, scores)


def read(job: AlignmentJob, model: Path, rows: Path) -> list[Example]:
    encode = TokenEncoder(load_tokenizer(model), job.data)
    found = [row for row in read_rows(rows, RowNeeds.of(job)) if isinstance(row, Row)]
    examples = [result.example for result in encode(found)]  # type: ignore[union-attr] # every row is usable
    assert all(example is not None for example in examples)
    return examples  # type: ignore[return-value] # none of them is None


if __name__ == "__main__":
    run_side(__doc__, make_block, "--compiled")
