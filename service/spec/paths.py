"""Where a path that a client names really leads."""

import os
from collections.abc import Iterable
from pathlib import Path


def readable_file(path: str, roots: Iterable[Path], storage: Path) -> Path | None:
    """The file with every link and `..` resolved, if it can be read and then lies under one of `roots`; else None.

    storage: never part of a root, since it holds what other projects have uploaded.
    """
    try:
        file = Path(path).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # not there, a name too long, a circle of links, a NUL
        return None
    inside = any(file.is_relative_to(root.resolve()) for root in roots) and not file.is_relative_to(storage.resolve())
    return file if inside and file.is_file() and os.access(file, os.R_OK) else None
