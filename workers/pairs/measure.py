"""Measures a job's pairs under the policy before and after its training, on the workers that train it."""

import time
from collections.abc import Callable
from typing import Any

from torch import distributed

from service.spec import AlignmentJob
from service.spec.pairs import DEFAULT_PAIRS
from service.spec.reports import ProgressReport, Report
from service.spec.stages import Stage
from workers.data.example_file import ExampleFile
from workers.data.order import TrainingOrder
from workers.engine.models import CausalLM
from workers.engine.parallel import Rank, let_go
from workers.reference.plan import windows
from workers.reference.scorer import score_share
from workers.reference.store import Score


def num_measured(job: AlignmentJob) -> int:
    """How many pairs of the job are measured at most; 0 if it learns from no pairs."""
    if not job.has_pairs:
        return 0
    return DEFAULT_PAIRS if job.evaluation.pairs is None else job.evaluation.pairs


class PairMeasure:
    """All workers make one and call the same of its methods, since sharded models compute together; the scores are
    the first worker's, by position in the file."""

    def __init__(
        self, job: AlignmentJob, lm: CausalLM, examples: ExampleFile, order: TrainingOrder, rank: Rank
    ) -> None:
        self._job = job
        self._lm = lm
        self._examples = examples
        self._rank = rank
        # of its own and on the CPU: scores have left the GPU when they are gathered
        self._group = distributed.new_group(backend="gloo") if rank.count > 1 else None
        self.num_trained, self.positions = order.sample_trained(num_measured(job))
        self._num_done = 0
        self.seconds = 0.0
        self.before: dict[int, Score] = {}
        self.after: dict[int, Score] = {}

    def start(self) -> None:
        """Of the policy as it is before its first step, where there is no other reference. Once a run."""
        for window in windows(self.positions):
            self.before |= self._scores(window)

    def end(self, tell: Callable[[Report], None], keep_on: Callable[[], None]) -> None:
        """Of the trained policy. keep_on: called before each window; raises to give up."""
        for window in windows(self.positions):
            keep_on()
            self.after |= self._scores(window)
            self._num_done += len(window)
            tell(ProgressReport(stage=Stage.EVALUATE, done=self._num_done, total=len(self.positions), unit="pairs"))

    def _scores(self, window: list[int]) -> dict[int, Score]:
        started = time.monotonic()
        training = self._job.training
        members = [self._examples[i] for i in window]
        share = score_share(self._lm, members, training.precision, training.micro_batch_tokens, self._rank)
        let_go(self._lm.whole)
        shares: list[Any] = [share]
        if self._group is not None:
            shares = [None] * self._rank.count
            first = shares if self._rank.index == 0 else None
            distributed.gather_object(share, first, dst=0, group=self._group)
        self.seconds += time.monotonic() - started
        if self._rank.index:
            return {}
        return {window[i]: score for share in shares for i, score in share.items()}
