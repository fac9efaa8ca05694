"""What a reference pass has to score, and in which portions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.spec.reports import EventReport
from service.spec.stages import Stage
from workers.data.example_file import ExampleFile
from workers.reference.store import ReferenceStore

_WINDOW = 256  # pairs in a shard: enough to sort by length
_WINDOW_S = 3.0
_SMALLEST_WINDOW, _LARGEST_WINDOW = 16, 2048


@dataclass(frozen=True)
class Plan:
    """`to_score` holds positions in the example file, one for each missing key, in the order of first need."""

    needed: int
    hits: int
    to_score: list[int]
    damaged_shards: int

    def event(self, namespace: str) -> EventReport:
        damaged = f"; {self.damaged_shards} damaged shards ignored" if self.damaged_shards else ""
        return EventReport(
            type="reference.planned",
            stage=Stage.REFERENCE,
            message=f"{self.needed} pairs need reference log-probs: {self.hits} are in the store, "
            f"{len(self.to_score)} to score{damaged}",
            data={
                "pairs": self.needed,
                "hits": self.hits,
                "to_score": len(self.to_score),
                "damaged_shards": self.damaged_shards,
                "namespace": namespace,
            },
        )

    def scored_event(self, place: str) -> EventReport:
        """place: who has scored, and what became of it."""
        scored = len(self.to_score)
        return EventReport(
            type="reference.scored",
            stage=Stage.REFERENCE,
            message=f"{scored} pairs scored, {self.hits} found in the store; {place}",
            data={"scored": scored, "hits": self.hits},
        )


def plan(store: ReferenceStore, examples: ExampleFile, visits: Sequence[int]) -> Plan:
    """Compare what the job needs, `visits` in training order, with what the store holds."""
    first_position: dict[bytes, int] = {}
    for position in visits:
        first_position.setdefault(examples[position].key, position)
    reader = store.reader(first_position)
    reader.refresh()
    missing = reader.missing()
    return Plan(
        needed=len(first_position),
        hits=len(first_position) - len(missing),
        to_score=[position for key, position in first_position.items() if key in missing],
        damaged_shards=len(reader.damaged),
    )


def windows(positions: Sequence[int]) -> Iterator[list[int]]:
    """Positions to score, in the same order, shard by shard."""
    for start in range(0, len(positions), _WINDOW):
        yield list(positions[start : start + _WINDOW])


class PacedWindows:
    """The same for workers that score beside training, which waits for whole shards: each takes a worker about three
    seconds, whatever its speed, and the last ones less, so that all workers end together."""

    def __init__(self, positions: Sequence[int], workers: int) -> None:
        self._positions = positions
        self._workers = workers
        self._start = 0
        self._size = _SMALLEST_WINDOW
        self._again: list[list[int]] = []

    def __bool__(self) -> bool:
        """Whether one is left."""
        return bool(self._again) or self._start < len(self._positions)

    def take(self) -> list[int]:
        if self._again:
            return self._again.pop()
        share = -(-(len(self._positions) - self._start) // (2 * self._workers))
        size = min(self._size, max(share, _SMALLEST_WINDOW))
        window = list(self._positions[self._start : self._start + size])
        self._start += len(window)
        return window

    def give_back(self, window: list[int]) -> None:
        """Of a worker that was lost; it is the next to be taken, but for what comes before it in training order."""
        self._again.append(window)
        self._again.sort(key=lambda one: self._positions.index(one[0]), reverse=True)

    def scored(self, count: int, seconds: float) -> None:
        """How long a worker took for its last window."""
        size = int(count / max(seconds, 1e-3) * _WINDOW_S)
        self._size = min(max(size, _SMALLEST_WINDOW), _LARGEST_WINDOW)
