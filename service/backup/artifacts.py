"""What lies in the storage beside the database: which files there should be, and which of them there are."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from service.backup.tables import digest_of
from service.spec import Storage


class Artifact(BaseModel):
    """path: below the storage root. sha256: None for what can be made again: checkpoints and reference log-probs."""

    model_config = ConfigDict(frozen=True)

    path: str
    bytes: int
    sha256: str | None = None


def list_artifacts(storage: Storage) -> Iterator[Artifact]:
    """Reads every byte of uploads, published models and exported checkpoints: call it in a thread. Copies of the Hub's
    models are left out: an engine that finds none fetches the commit."""
    for directory, irreplaceable in (
        (storage.files, True),
        (storage.models, True),
        (storage.root / "exported", True),
        (storage.root / "runs", False),
        (storage.reference_store, False),
    ):
        for path in sorted(directory.rglob("*")):
            if path.is_symlink() or not path.is_file() or storage.removed_runs in path.parents:
                continue
            try:
                yield Artifact(
                    path=path.relative_to(storage.root).as_posix(),
                    bytes=path.stat().st_size,
                    sha256=digest_of(path) if irreplaceable else None,
                )
            except FileNotFoundError:  # deleted while we look; then nothing refers to it either
                continue


def trouble_with(artifact: Artifact, storage: Storage) -> str | None:
    """What is wrong with a file that should be there; None if it is as it was."""
    path = storage.root / artifact.path
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != artifact.bytes:
        return f"has {path.stat().st_size} bytes, not {artifact.bytes}"
    if artifact.sha256 is not None and digest_of(path) != artifact.sha256:
        return "has another content"
    return None
