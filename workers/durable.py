"""What must be on the disk before something else is done."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Returns when the file, or the directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
