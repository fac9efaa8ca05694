"""What must be on the disk before something else is done, and what goes from it at once."""

import os
import shutil
import uuid
from pathlib import Path


def sync(path: Path) -> None:
    """Returns when the file, or the directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(directory: Path) -> None:
    """By its name first, so that nobody finds a part of it. Nothing happens if it is not there."""
    hidden = directory.with_name(f".{directory.name}-{uuid.uuid4().hex}")
    try:
        directory.rename(hidden)
    except FileNotFoundError:
        return
    shutil.rmtree(hidden, ignore_errors=True)
