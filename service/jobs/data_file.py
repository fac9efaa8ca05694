"""Training files that a client names by their path on the server: where they may lie."""

import os
from collections.abc import Sequence
from pathlib import Path

from service.errors import DatasetInvalid


def find_data_file(path: str, roots: Sequence[Path], storage: Path, field: str = "data.train") -> Path:
    """The file, with links and `..` resolved; DatasetInvalid unless it then lies under one of `roots`.

    storage: never part of a root, since it holds what other projects have uploaded. The answer is the same for what
    does not exist, cannot be read or lies elsewhere: clients do not get to look around.
    """
    try:
        file = Path(path).resolve(strict=True)
    except (OSError, RuntimeError):  # not there, a name too long, a circle of links
        file = None
    if (
        file is None
        or not file.is_file()
        or not os.access(file, os.R_OK)
        or not any(file.is_relative_to(root.resolve()) for root in roots)
        or file.is_relative_to(storage.resolve())
    ):
        under = f"under {' or '.join(str(root) for root in roots)}" if roots else "that jobs may read (no data roots)"
        raise DatasetInvalid(
            f"There is no file {path} {under}. Put it there, or upload it with POST /v1/files and use its ID.",
            field=field,
        )
    return file
