"""Where training rows come from: what `data.train` may say, taken apart."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

_FILE_ID = re.compile(r"file-[0-9a-f]{21}")
_HUB = re.compile(
    r"hf:(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w.-]+))?(/(?P<path>[^:\0]+)|:(?P<split>[\w.-]+))?"
)


class SourceKind(StrEnum):
    FILE = "file"  # uploaded with POST /v1/files
    PATH = "path"  # on the cluster's storage, under an allowed root
    URL = "url"  # s3://, gs:// or https://, fetched by the attempt
    HUB = "hub"  # a dataset on the Hugging Face Hub, fetched by the attempt

    @property
    def fetched(self) -> bool:
        """Whether an attempt fetches it, so that the control plane never sees its rows."""
        return self in (SourceKind.URL, SourceKind.HUB)


@dataclass(frozen=True)
class HubSource:
    """`hf:owner/name[@revision]` with a file or directory of the repository, or with a split."""

    repository: str
    revision: str | None
    path: str | None
    split: str | None

    def at(self, commit: str) -> str:
        """What `data.train` may say to mean these very bytes for ever."""
        place = f"/{self.path}" if self.path is not None else f":{self.split}" if self.split is not None else ""
        return f"hf:{self.repository}@{commit}{place}"


def source_kind(train: str) -> SourceKind:
    """Raises ValueError, saying which forms there are, for what is none of them."""
    if _FILE_ID.fullmatch(train):
        return SourceKind.FILE
    if train.startswith("/"):
        return SourceKind.PATH
    if train.startswith("hf:"):
        hub_source(train)
        return SourceKind.HUB
    scheme = train.partition("://")[0] if "://" in train else ""
    if scheme == "http":
        raise ValueError("http:// is not encrypted and not fetched: use https://")
    if scheme not in ("s3", "gs", "https"):
        raise ValueError(
            "must be the ID of an uploaded file (POST /v1/files), an absolute path on the server, a URL (s3://, gs://, "
            "https://) or hf:owner/name[@revision][/path or :split]"
        )
    _check_url(train)
    return SourceKind.URL


def hub_source(train: str) -> HubSource:
    """Raises ValueError if it is not of the form."""
    match = _HUB.fullmatch(train)
    if match is None or ".." in train:
        raise ValueError("must be hf:owner/name[@revision], then /path of a file or directory, or :split")
    return HubSource(**match.groupdict())


def may_be_fetched(url: str, patterns: Sequence[str]) -> bool:
    """Whether `scheme://host` (or bucket) of the URL matches one of the patterns, as file names match in a shell."""
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.hostname or ''}".lower()
    return any(fnmatchcase(place, pattern.lower()) for pattern in patterns)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, user, _ = parts.hostname, parts.username, parts.port
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from error
    if not host or not parts.path.strip("/"):
        raise ValueError("the URL must name a host or bucket, and a file there")
    if user is not None:
        raise ValueError("a URL with a user name or password would be stored as it is: leave them out")
    if not url.isprintable() or (parts.scheme == "https" and " " in url):
        raise ValueError("the URL has characters that must be percent-encoded")
