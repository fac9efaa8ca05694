"""Why an engine did not start, in its own words.

vLLM's engine core is a process of its own: what went wrong there is in its log, and the replica hears only that
something did. Both write to the same files.
"""

import os
import re
from pathlib import Path

_TAIL_BYTES = 256 * 1024
_PREFIX = re.compile(r"^(\(\w+( pid=\d+)?\) )*([A-Z]+ \d\d-\d\d [\d:]+ \[[^\]]*\] )?(\(\w+( pid=\d+)?\) )*")
_ERROR = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|OutOfMemory\w*)): (.+)")
_NO_REASON = re.compile(r"root cause|WorkerProc|died|cancelled|failed to start|initialization failed", re.IGNORECASE)


def root_cause(log: str) -> str | None:
    """The last error in the log that is more than word of another one; None if there is none.

    A line of a log looks like `(EngineCore pid=7) ERROR 11-21 17:00:00 [core.py:9] ValueError: what is the matter`.
    """
    found = None
    for line in log.splitlines():
        match = _ERROR.match(_PREFIX.sub("", line))
        if match and not _NO_REASON.search(match[2]):
            found = f"{match[1]}: {match[2].strip()}"
    return found


def own_log() -> str:
    """The end of what this process and its children have written; empty if that went to no file."""
    streams = {Path(f"/proc/self/fd/{number}").resolve() for number in (1, 2)}
    return "\n".join(_tail(path) for path in sorted(streams) if path.is_file())


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace")
