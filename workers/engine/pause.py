"""The word to pause, which all workers of a run must hear before the same step."""

from collections.abc import Callable

import torch
from torch import distributed

from workers.engine.parallel import Rank


class PauseSignal:
    def __init__(self, asked: Callable[[], bool], rank: Rank) -> None:
        """asked: looked at on the first worker alone. All workers make one."""
        self._asked = asked
        self._rank = rank
        # of its own, since the writer of checkpoints speaks at any time; on the CPU, so that no GPU is waited for
        self._group = distributed.new_group(backend="gloo") if rank.count > 1 else None

    def given(self) -> bool:
        """Whether the first worker is asked to pause. All workers call it, between the same steps."""
        given = self._rank.index == 0 and self._asked()
        if self._group is None:
            return given
        word = torch.tensor(int(given))
        distributed.broadcast(word, src=0, group=self._group)
        return bool(word.item())
