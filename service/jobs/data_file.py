"""Training files that a client names by their path on the server: where they may lie."""

from collections.abc import Sequence
from pathlib import Path

from service.errors import DatasetInvalid
from service.spec.paths import readable_file


def find_data_file(path: str, roots: Sequence[Path], storage: Path, field: str = "data.train") -> Path:
    """The file, with links and `..` resolved; DatasetInvalid unless it then lies under one of `roots`.

    storage: never part of a root, since it holds what other projects have uploaded. The answer is the same for what
    does not exist, cannot be read or lies elsewhere: clients do not get to look around.
    """
    file = readable_file(path, roots, storage)
    if file is None:
        under = f"under {' or '.join(str(root) for root in roots)}" if roots else "that jobs may read (no data roots)"
        raise DatasetInvalid(
            f"There is no file {path} {under}. Put it there, or upload it with POST /v1/files and use its ID.",
            field=field,
        )
    return file
