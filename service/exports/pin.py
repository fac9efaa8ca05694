"""Keeping a checkpoint for its export.

The job's own checkpoints come and go: the oldest goes with each new one, all of them when the model is published. The
pinned one is made of hard links, which cost nothing and need no word with the training; where the storage has none, of
copies. A checkpoint leaves its place by a rename (workers.engine.checkpoint), so what is linked is whole or not there.
"""

import os
import secrets
import shutil
from pathlib import Path

from service.spec import Storage
from service.spec.export import refusal_path
from service.spec.layout import step_name


def pin(storage: Storage, job_id: str, step: int) -> bool:
    """Whether there is such a checkpoint, pinned now or before. May copy many gigabytes: not for the event loop."""
    pinned = storage.pinned(job_id, step)
    if pinned.is_dir():
        os.utime(pinned)  # asked for again: no sweep may take it for one that was left
        return True
    source = storage.checkpoints(job_id) / step_name(step)
    temporary = pinned.with_name(f".{pinned.name}-{secrets.token_hex(8)}")
    try:
        names = sorted(path.name for path in source.iterdir())
    except FileNotFoundError:
        return False
    temporary.mkdir(parents=True)
    try:
        for name in names:
            _link_or_copy(source / name, temporary / name)
        temporary.rename(pinned)
    except FileNotFoundError:  # it has just gone from its place
        return False
    except OSError:
        if pinned.is_dir():  # another request was faster
            return True
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def unpin(storage: Storage, job_id: str, step: int) -> None:
    pinned = storage.pinned(job_id, step)
    shutil.rmtree(pinned, ignore_errors=True)
    refusal_path(pinned).unlink(missing_ok=True)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links, of which each says so in its own way
        shutil.copyfile(source, target)
