"""What engines call the models they hold. One definition for those who ask and those who answer."""

import re

WEIGHTS = "weights"  # the engine's own; `weights:ID` is an adapter on them

_ADAPTER = re.compile(rf"{WEIGHTS}:(job-[0-9a-f]{{21}})(?:@(\d{{1,9}}))?", re.ASCII)


def adapter_name(job_id: str, step: int | None) -> str:
    """The adapter that a job published, or that of its checkpoint after `step`."""
    return f"{WEIGHTS}:{job_id}" if step is None else f"{WEIGHTS}:{job_id}@{step}"


def adapter_of(name: str) -> tuple[str, int | None]:
    """Job and step: the inverse of `adapter_name`. Raises ValueError for any other text."""
    match = _ADAPTER.fullmatch(name)
    if match is None:
        raise ValueError(f"'{name[:100]}' names no adapter")
    return match[1], int(match[2]) if match[2] is not None else None
