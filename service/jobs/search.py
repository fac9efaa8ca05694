"""What a search of the list of jobs looks through: one short text a job, kept beside its row."""

from collections.abc import Mapping
from typing import Any

MAX_LENGTH = 500  # of the text: a whole page of an index has room for several


def search_text(job_id: str, spec: Mapping[str, Any], owner: str | None) -> str:
    """Name, ID, owner, model, data, losses and labels in lower case, as far as there is room, in this order."""
    data, losses, labels = spec.get("data") or {}, spec.get("losses") or [], spec.get("metadata") or {}
    parts = [spec.get("name"), job_id, owner, (spec.get("model") or {}).get("source"), data.get("train")]
    parts += [loss.get("type") for loss in losses]
    parts += [f"{name}={value}" for name, value in labels.items()]
    return " ".join(str(part) for part in parts if part).casefold()[:MAX_LENGTH]


def words(query: str) -> list[str]:
    """What a job's text must contain, each of them, to match the query."""
    return query.casefold().split()
