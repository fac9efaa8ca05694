"""What a file was, for whoever wants to know later whether it, or another one, is the same."""

import hashlib
from pathlib import Path


def digest_of(source: Path) -> str:
    """SHA-256 of the file; of a directory, that of its files' names and digests, in the order of the names."""
    if source.is_dir():
        parts = [f"{digest_of(path)}  {path.name}\n" for path in sorted(source.iterdir()) if path.is_file()]
        return hashlib.sha256("".join(parts).encode(errors="surrogateescape")).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
