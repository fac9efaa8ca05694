"""What a model's folder in the object store holds: every file with its size and SHA-256."""

import hashlib
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, field_validator

NAME = "plumbline-manifest.json"


class ArchivedFile(BaseModel):
    """path: below the folder, with `/`."""

    model_config = ConfigDict(frozen=True)

    path: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or str(path) in ("", ".") or "\0" in value:
            raise ValueError("leaves the folder")
        return value


class Manifest(BaseModel):
    model_config = ConfigDict(frozen=True)

    job_id: str
    files: list[ArchivedFile]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def manifest_of(job_id: str, directory: Path) -> Manifest:
    """Reads every byte: call it in a thread. Raises FileNotFoundError if the directory is not there, or goes."""
    if not directory.is_dir():
        raise FileNotFoundError(str(directory))
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return Manifest(job_id=job_id, files=[_file(path, directory) for path in files])


def first_difference(manifest: Manifest, directory: Path) -> str | None:
    """The first file that is not as the manifest has it; None if all are. Reads every byte: call it in a thread."""
    for file in manifest.files:
        path = directory / file.path
        if not path.is_file() or _file(path, directory) != file:
            return file.path
    return None


def _file(path: Path, directory: Path) -> ArchivedFile:
    with path.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return ArchivedFile(path=path.relative_to(directory).as_posix(), bytes=path.stat().st_size, sha256=sha256)
