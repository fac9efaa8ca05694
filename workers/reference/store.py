"""The reference store: log-probs of examples under a reference model, addressed by content and shared by all jobs.

    {root}/{namespace}/shards/{id}.parquet     key, logps of each answer: one row an example; never changed
    {root}/{namespace}/manifests/{id}.json     {sha256, rows}: written after its shard, by a rename

A shard counts when its manifest exists and its checksum holds. Writers never share a file, so any number of jobs may
write at one time; an example that two of them scored is stored twice and means the same.
"""

import hashlib
import io
import json
import logging
import os
import uuid
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workers.arrow import pa, pq

logger = logging.getLogger(__name__)

Logps = NDArray[np.float32]

_SCHEMA = pa.schema([("key", pa.binary(32)), ("logps", pa.list_(pa.list_(pa.float32())))])


Score = tuple[Logps, ...]  # of an example: the log-probs of each answer's counted tokens, in order


class ReferenceStore:
    def __init__(self, root: Path, namespace: str) -> None:
        self.namespace = namespace
        self._shards = root / namespace / "shards"
        self._manifests = root / namespace / "manifests"

    def commit(self, scores: Iterable[tuple[bytes, Score]]) -> None:
        """Write one shard; it is visible to readers whole, or not at all."""
        rows = list(scores)
        table = pa.table(
            [
                pa.array([key for key, _ in rows], pa.binary(32)),
                [list(score) for _, score in rows],
            ],
            schema=_SCHEMA,
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        content = buffer.getvalue()
        shard = uuid.uuid4().hex
        _write(self._shards / f"{shard}.parquet", content)
        manifest = {"sha256": hashlib.sha256(content).hexdigest(), "rows": len(rows)}
        _write(self._manifests / f"{shard}.json", json.dumps(manifest).encode())

    def is_empty(self) -> bool:
        """Whether nothing was ever committed: then every pair is to be scored, whichever they are."""
        return next(self._manifests.glob("*.json"), None) is None

    def reader(self, keys: Collection[bytes]) -> "StoreReader":
        return StoreReader(self._shards, self._manifests, keys)


class StoreReader:
    """The scores of some keys, as they arrive. `refresh` looks for shards committed since the last call."""

    def __init__(self, shards: Path, manifests: Path, keys: Collection[bytes]) -> None:
        self._shards = shards
        self._manifests = manifests
        self._keys = frozenset(keys)
        self._seen: set[str] = set()
        self.scores: dict[bytes, Score] = {}
        self.damaged: list[str] = []

    def refresh(self) -> None:
        if len(self.scores) == len(self._keys) or not self._manifests.exists():
            return
        for name in sorted(entry.name for entry in os.scandir(self._manifests) if entry.name.endswith(".json")):
            if name not in self._seen:
                self._seen.add(name)
                self._load(name)

    def missing(self) -> frozenset[bytes]:
        return self._keys - self.scores.keys()

    def _load(self, name: str) -> None:
        content = self._intact(name)
        if content is None:
            self.damaged.append(name)
            logger.warning("reference shard %s is damaged and is ignored; its examples are scored again", name)
            return
        keys = pq.read_table(pa.BufferReader(content), columns=["key"])["key"].to_pylist()
        wanted = [i for i, key in enumerate(keys) if key in self._keys and key not in self.scores]
        if not wanted:
            return
        table = pq.read_table(pa.BufferReader(content)).take(wanted).combine_chunks()
        column = table["logps"].chunk(0)
        answers, tokens = column.offsets.to_numpy(), column.values.offsets.to_numpy()
        logps = column.values.values.to_numpy()
        for row, i in enumerate(wanted):
            self.scores[keys[i]] = tuple(
                logps[tokens[k] : tokens[k + 1]] for k in range(answers[row], answers[row + 1])
            )

    def _intact(self, name: str) -> bytes | None:
        """The shard's content if it is what its manifest says, else None."""
        try:
            manifest = json.loads((self._manifests / name).read_bytes())
            content = (self._shards / name).with_suffix(".parquet").read_bytes()
        except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
            return None
        known = manifest.get("sha256") if isinstance(manifest, dict) else None
        return content if hashlib.sha256(content).hexdigest() == known else None


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, and on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")  # which no reader takes for one
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
