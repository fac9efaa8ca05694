"""Training rows from elsewhere: fetched once into the job's run directory, so that every attempt reads the same bytes.

    fetched/rows/           the files, in order
    fetched/manifest.json   where they came from, their sizes and SHA-256

The directory is renamed into place when it is whole. Credentials and endpoints are those of the worker's environment
(AWS_*, GOOGLE_*, HF_TOKEN, HF_ENDPOINT...); a job cannot bring any.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from service.spec.paths import readable_file
from service.spec.reports import AttemptBrief
from service.spec.secrets import redact
from service.spec.sources import SourceKind, hub_source, source_kind
from service.spec.stages import Stage
from workers.data.remote import buckets, https, hub
from workers.errors import AttemptError
from workers.reporting import Reporter

_BLOCK = 2**20
_SHOWN = 20


@dataclass(frozen=True)
class FetchedFile:
    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Fetched:
    """What was fetched. source: without the secrets of a signed URL. commit: of a dataset on the hub, what the name
    meant at the first attempt."""

    source: str
    commit: str | None
    files: list[FetchedFile]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def pinned(self) -> str:
        """The source, with the commit of a dataset on the hub: what to name for the same rows again."""
        return self.source if self.commit is None else hub_source(self.source).at(self.commit)


def training_file(brief: AttemptBrief, run_dir: Path, reporter: Reporter) -> tuple[Path, str]:
    """The attempt's training file or directory of files, fetched into `run_dir` if it is not on the storage; and the
    name that means the same rows again.

    Raises what `fetch` raises, and AttemptError `source_refused` for a path that leads out of the data roots by now.
    """
    storage = Path(brief.storage)
    if brief.spec.data.source is SourceKind.PATH:
        # Again, for a link may have been put in its place since the job was accepted
        file = readable_file(brief.spec.data.train, [Path(root) for root in brief.data_roots], storage)
        if file is None:
            raise AttemptError(
                "source_refused", f"{brief.spec.data.train} cannot be read any more, or leads out of the data roots."
            )
        return file, brief.spec.data.train
    if brief.train_file is not None:
        return storage / brief.train_file, brief.spec.data.train
    networks = [ip_network(network) for network in brief.allow_private_urls]
    limits = https.Limits(brief.max_download_bytes, brief.download_timeout_s)
    path, fetched = fetch(brief.spec.data.train, run_dir / "fetched", networks, brief.allowed_urls, limits)
    reporter.event(
        "data.fetched",
        f"{len(fetched.files)} files with {fetched.bytes} bytes from {fetched.source}",
        Stage.PREPARE,
        source=fetched.source,
        pinned=fetched.pinned,
        commit=fetched.commit,
        files=[asdict(file) for file in fetched.files[:_SHOWN]],
    )
    return path, fetched.pinned


def validation_file(brief: AttemptBrief) -> Path | None:
    return Path(brief.storage) / brief.validation_file if brief.validation_file is not None else None


def size_of(source: Path) -> int:
    """Bytes of what `training_file` names, a file or a directory of files."""
    return sum(path.stat().st_size for path in (source.iterdir() if source.is_dir() else [source]))


def fetch(
    train: str,
    directory: Path,
    allowed: Sequence[IPv4Network | IPv6Network],
    patterns: Sequence[str] = ("*",),
    limits: https.Limits = https.UNLIMITED,
) -> tuple[Path, Fetched]:
    """The file, or the directory of files, that `read_rows` takes; and what is known of it.

    directory: where it is kept; whatever is whole there is taken instead of fetching again.
    allowed: private networks that https:// sources may lie in. patterns: of scheme://host, see `may_be_fetched`.
    limits: of an https:// download.
    Raises AttemptError `source_not_found`, `source_refused`, `source_too_large`, `source_too_slow`, `source_unclear`,
    or `source_unreachable` (retried).
    """
    manifest = directory / "manifest.json"
    if not manifest.is_file():
        for left in directory.parent.glob(f".{directory.name}.*"):  # by an attempt that was killed
            shutil.rmtree(left, ignore_errors=True)
        temporary = directory.with_name(f".{directory.name}.{os.getpid()}")
        rows = temporary / "rows"
        rows.mkdir(parents=True)
        try:
            commit = _download(train, rows, allowed, patterns, limits)
            files = [_describe(path) for path in sorted(rows.iterdir())]
            (temporary / "manifest.json").write_text(json.dumps(asdict(Fetched(redact(train), commit, files))))
            temporary.rename(directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    told = json.loads(manifest.read_text())
    fetched = Fetched(told["source"], told["commit"], [FetchedFile(**file) for file in told["files"]])
    rows = directory / "rows"
    return (rows / fetched.files[0].name if len(fetched.files) == 1 else rows), fetched


def _download(
    train: str,
    rows: Path,
    allowed: Sequence[IPv4Network | IPv6Network],
    patterns: Sequence[str],
    limits: https.Limits,
) -> str | None:
    if source_kind(train) is SourceKind.HUB:
        return hub.download(hub_source(train), rows)
    if train.startswith("https://"):
        https.download(train, rows / "00000", allowed, patterns, limits)
    else:
        buckets.download(train, rows / "00000")
    return None


def _describe(path: Path) -> FetchedFile:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return FetchedFile(path.name, path.stat().st_size, digest.hexdigest())
