"""A model's folder in the object store: written, read back and removed as a whole. No database."""

import asyncio
import os
from pathlib import Path

from pydantic import ValidationError

from service.archive.manifest import NAME, Manifest, first_difference
from service.errors import ModelUnusable
from service.files.bucket import Bucket, bucket


def address(models_url: str, name: str) -> str:
    """name: of a job for what it published, of `service.archive.exported` for a checkpoint."""
    return f"{models_url.rstrip('/')}/{name}"


async def put(url: str, directory: Path, manifest: Manifest) -> None:
    """Idempotent, and harmless beside another one of the same model: its bytes never change.

    Raises FileNotFoundError if a file goes meanwhile, Unavailable.
    """
    store, folder = _opened(url)
    for file in manifest.files:
        await store.put(directory / file.path, f"{folder}/{file.path}")
    await store.put_bytes(manifest.model_dump_json().encode(), f"{folder}/{NAME}")


async def fetch(url: str, target: Path, job_id: str) -> None:
    """Make the directory `target` of the folder's files, each checked against the manifest and synced.

    Raises ModelUnusable if the folder has no manifest, or other bytes than its manifest says; Unavailable.
    """
    store, folder = _opened(url)
    try:
        manifest = Manifest.model_validate_json(await store.read(f"{folder}/{NAME}"))
    except FileNotFoundError as error:
        raise ModelUnusable(f"The model of {job_id} is neither on the storage nor in the object store.") from error
    except ValidationError as error:
        raise ModelUnusable(f"The manifest of {job_id}'s model in the object store is damaged.") from error
    await asyncio.to_thread(target.mkdir, parents=True)
    for file in manifest.files:
        path = target / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            await store.fetch(f"{folder}/{file.path}", path)
        except FileNotFoundError as error:
            raise _damaged(job_id, file.path) from error
    if manifest.job_id != job_id:
        raise _damaged(job_id, NAME)
    if (different := await asyncio.to_thread(first_difference, manifest, target)) is not None:
        raise _damaged(job_id, different)
    await asyncio.to_thread(_sync, target)


async def remove(url: str) -> None:
    """The manifest first, so that what a crash leaves is no model. Idempotent. Raises Unavailable."""
    store, folder = _opened(url)
    await store.delete(f"{folder}/{NAME}")
    for name in await store.names(f"{folder}/"):
        await store.delete(name)


def _opened(url: str) -> tuple[Bucket, str]:
    root, _, folder = url.rpartition("/")
    return bucket(root), folder


def _damaged(job_id: str, path: str) -> ModelUnusable:
    return ModelUnusable(
        f"The copy of {job_id}'s model in the object store is damaged: {path} is not as its manifest says. Train it "
        "again, or name another model."
    )


def _sync(directory: Path) -> None:
    for path in [*directory.rglob("*"), directory]:
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
