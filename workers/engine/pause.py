"""The word to pause, which all workers of a run must hear before the same step."""

import time
from collections.abc import Callable
from enum import IntEnum

import torch
from torch import distributed

from workers.engine.parallel import Rank

_POLL_S = 0.2


class PauseSignal:
    def __init__(self, asked: Callable[[], bool], rank: Rank) -> None:
        """asked: looked at on the first worker alone. All workers make one."""
        self._asked = asked
        self._rank = rank
        # of its own, since the writer of checkpoints speaks at any time; on the CPU, so that no GPU is waited for
        self._group = distributed.new_group(backend="gloo") if rank.count > 1 else None

    def given(self, ready: Callable[[], bool] = lambda: True) -> bool:
        """Whether the first worker is asked to pause. Waits for that as long as what comes next is not `ready`, which
        is looked at on the first worker alone too. All workers call it, between the same steps."""
        while (word := self._agreed(self._word(ready))) is _Word.WAIT:
            time.sleep(_POLL_S)
        return word is _Word.PAUSE

    def _word(self, ready: Callable[[], bool]) -> "_Word":
        if self._rank.index == 0 and self._asked():
            return _Word.PAUSE
        return _Word.GO if self._rank.index or ready() else _Word.WAIT

    def _agreed(self, word: "_Word") -> "_Word":
        """That of the first worker."""
        if self._group is None:
            return word
        told = torch.tensor(word)
        distributed.broadcast(told, src=0, group=self._group)
        return _Word(int(told))


class _Word(IntEnum):
    GO = 0
    PAUSE = 1
    WAIT = 2
