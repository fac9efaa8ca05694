"""How a training worker gets the reference scores of its next step while the reference pass still runs.

The store itself is the channel. Beside it, in the job's run directory, lies one small file that says whether the pass
is still `running`, is `complete`, or has `failed`, so that a trainer never waits for scores that nobody will write.
"""

import time
from collections.abc import Collection
from enum import StrEnum
from pathlib import Path

from service.spec.reports import Fault
from workers.errors import AttemptError
from workers.reference.store import Score, StoreReader

_POLL_S = 0.2


class PassState(StrEnum):
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"


def write_state(path: Path, state: PassState) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(state)
    temporary.replace(path)


class ScoreFeed:
    """`waited_s` adds up for how long scores were waited for."""

    def __init__(self, reader: StoreReader, state_path: Path) -> None:
        self._reader = reader
        self._state_path = state_path
        self._waits_since: float | None = None
        self.waited_s = 0.0

    def ready(self, keys: Collection[bytes]) -> bool:
        """Whether `get` need not wait: all scores are there, or the pass has ended without some of them."""
        missing, state = self._look(keys)
        now = time.monotonic()
        if missing and state is PassState.RUNNING:
            self._waits_since = now if self._waits_since is None else self._waits_since
            return False
        if self._waits_since is not None:
            self.waited_s += now - self._waits_since
            self._waits_since = None
        return True

    def get(self, keys: Collection[bytes]) -> list[Score]:
        """The scores of `keys`, waiting for the ones that are still being computed. Raises AttemptError where nobody
        will."""
        while not self.ready(keys):
            time.sleep(_POLL_S)
        missing, state = self._look(keys)
        if missing:
            raise AttemptError(
                "reference_incomplete",
                f"The reference pass is {state}, but {len(missing)} of {len(keys)} pairs have no score; the "
                f"first is {missing[0].hex()}.",
                Fault.SYSTEM,
            )
        return [self._reader.scores[key] for key in keys]

    def _look(self, keys: Collection[bytes]) -> tuple[list[bytes], PassState | None]:
        """Those of `keys` without a score, and if there are any how the pass is."""
        if all(key in self._reader.scores for key in keys):
            return [], None
        state = PassState(self._state_path.read_text())  # before the refresh: `complete` means all is visible
        self._reader.refresh()
        return [key for key in keys if key not in self._reader.scores], state
