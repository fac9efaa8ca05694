"""The reference pass on the policy's own weights: before its first step, the policy is the reference.

For a machine whose one GPU is all there is: no second copy of the model, no second process.
"""

from collections.abc import Callable
from typing import Any

from torch import distributed

from service.spec import Precision
from service.spec.reports import EventReport, ProgressReport, Report
from service.spec.stages import Stage
from workers.data.example_file import ExampleFile
from workers.data.order import TrainingOrder
from workers.engine.models import CausalLM
from workers.engine.parallel import Rank, let_go
from workers.reference.plan import plan, windows
from workers.reference.scorer import score_share
from workers.reference.store import ReferenceStore


def score_missing(
    lm: CausalLM,
    examples: ExampleFile,
    order: TrainingOrder,
    store: ReferenceStore,
    precision: Precision,
    batch_tokens: int,
    rank: Rank,
    tell: Callable[[Report], None],
    keep_on: Callable[[], None],
) -> None:
    """Score what the store lacks and commit it, window by window, each worker its share. All workers call it, with
    weights that no step has touched; when it returns, the store has every pair.

    keep_on: called before each window; raises to stop. What was committed before that, or a crash, is not scored again.
    """
    missing: list[Any] = [plan(store, examples, order.first_visits().tolist())]
    if rank.count > 1:
        distributed.broadcast_object_list(missing, src=0)  # a shard may land while the others look
    tell(missing[0].event(store.namespace))
    done, total = 0, len(missing[0].to_score)
    if total:
        message = f"The policy scores before its first step: {lm.paths}"
        tell(EventReport(type="reference.started", stage=Stage.REFERENCE, message=message))
    for window in windows(missing[0].to_score):
        keep_on()
        members = [examples[i] for i in window]
        scores = score_share(lm, members, precision, batch_tokens, rank)
        if scores:
            store.commit((members[i].key, one) for i, one in scores.items())
        done += len(window)
        tell(ProgressReport(stage=Stage.REFERENCE, done=done, total=total, unit="pairs"))
    let_go(lm.whole)
    if rank.count > 1:
        distributed.barrier()
    tell(missing[0].scored_event("by the policy's own weights, before the first step"))
