"""What a worker does with an error that the others may not have met."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
from torch import distributed

from tests.workers.training_runs import on_workers
from workers.engine import worker
from workers.engine.parallel import Rank


def _meet(rank: Rank, late_s: float, out: Path) -> None:
    worker._STOP_TIMEOUT = timedelta(seconds=4 if late_s else 60)  # neither is late, but either may be held up
    group = distributed.new_group(backend="gloo")
    if rank.index == 1:
        time.sleep(late_s)
    (out / str(rank.index)).write_text(str(worker._all_stop(group)))


@pytest.mark.parametrize(("late_s", "found"), [(0, "True"), (12, "False")], ids=["both", "one alone"])
def test_a_worker_knows_whether_all_stop_or_the_others_wait_for_it(late_s: float, found: str, tmp_path: Path) -> None:
    on_workers(2, tmp_path, _meet, late_s, tmp_path)
    assert (tmp_path / "0").read_text() == found
