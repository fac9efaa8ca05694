"""What a reference pass has to score, and in which portions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.spec.reports import EventReport
from service.spec.stages import Stage
from workers.data.example_file import ExampleFile
from workers.reference.store import ReferenceStore

_WINDOW = 256  # pairs in a shard: small enough that training starts early, large enough to sort by length
_FIRST_WINDOWS = (16, 32, 64, 128)  # ... and smaller at first, so that it starts earlier still


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


def windows(positions: Sequence[int], workers: int = 1) -> Iterator[list[int]]:
    """Positions to score, in the same order, shard by shard; towards the end smaller again, so that all workers end
    together."""
    start = 0
    sizes = iter(_FIRST_WINDOWS)
    while start < len(positions):
        share = -(-(len(positions) - start) // (2 * workers)) if workers > 1 else len(positions)
        size = min(next(sizes, _WINDOW), max(share, _FIRST_WINDOWS[0]))
        yield list(positions[start : start + size])
        start += size
