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
    """Waits for scores; `waited_s` adds up for how long."""

    def __init__(self, reader: StoreReader, state_path: Path) -> None:
        self._reader = reader
        self._state_path = state_path
        self.waited_s = 0.0

    def get(self, keys: Collection[bytes]) -> list[Score]:
        """The scores of `keys`, waiting for the ones that are still being computed."""
        started = time.monotonic()
        while any(key not in self._reader.scores for key in keys):
            state = PassState(self._state_path.read_text())  # before the refresh: `complete` means all is visible
            self._reader.refresh()
            missing = [key for key in keys if key not in self._reader.scores]
            if not missing:
                break
            if state is not PassState.RUNNING:
                raise AttemptError(
                    "reference_incomplete",
                    f"The reference pass is {state}, but {len(missing)} of {len(keys)} pairs have no score; the "
                    f"first is {missing[0].hex()}.",
                    Fault.SYSTEM,
                )
            time.sleep(_POLL_S)
        self.waited_s += time.monotonic() - started
        return [self._reader.scores[key] for key in keys]
