"""What a training worker is told. Imports neither torch nor transformers: drivers and Ray's controllers read it too,
and each would pay for them again in the time until the first step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.spec import AlignmentJob
from workers.sources import Weights


@dataclass(frozen=True)
class RunConfig:
    job: AlignmentJob
    start: Weights
    examples: Path
    checkpoints: Path
    export: Path  # where the trained model is left
    reference: Path | None = None  # the model, when the reference follows the policy
    store_root: Path | None = None  # None when there is no reference pass
    namespace: str = ""
    pass_state: Path | None = None
    pairs: Path | None = None  # where to leave what training did to its pairs; see service.spec.pairs
    attempt_id: str = ""  # for the worker's log
    scores_itself: bool = False  # on the policy's weights, before its first step


@dataclass(frozen=True)
class WorkerConfig:
    run: RunConfig
    mailbox: Any  # handle of the Mailbox actor
