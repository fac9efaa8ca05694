"""A file over HTTPS, from the public internet only: a job must not read what only this network may.

The host is resolved here, every address that the name has is checked, and the connection goes to the address that was
checked, at each redirect anew; so a name cannot mean something else a moment later (DNS rebinding).
"""

import math
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import httpx

from service.spec.addresses import refused
from service.spec.reports import Fault
from service.spec.sources import may_be_fetched
from workers.errors import AttemptError

_MAX_REDIRECTS = 5
_BLOCK = 2**20
_TIMEOUT_S = 60.0  # of silence


@dataclass(frozen=True)
class Limits:
    """Of one download, with its redirects."""

    max_bytes: float
    timeout_s: float


UNLIMITED = Limits(math.inf, math.inf)


def download(
    url: str,
    target: Path,
    allowed: Sequence[IPv4Network | IPv6Network],
    patterns: Sequence[str] = ("*",),
    limits: Limits = UNLIMITED,
) -> None:
    """Stream the file to `target`, as it is stored: no Content-Encoding is undone.

    Raises AttemptError `source_not_found`, `source_refused`, `source_too_large`, `source_too_slow` or
    `source_unreachable`.
    """
    at = httpx.URL(url)
    deadline = time.monotonic() + limits.timeout_s
    with httpx.Client(timeout=_TIMEOUT_S) as client:
        for _ in range(_MAX_REDIRECTS + 1):
            if not may_be_fetched(str(at), patterns):
                raise AttemptError(
                    "source_refused",
                    f"The data would be fetched from {at.host}, which PLUMBLINE_ALLOWED_URLS rules out.",
                )
            request = _request(client, at, allowed)
            try:
                response = client.send(request, stream=True)
                try:
                    if not response.is_redirect:
                        _save(response, url, target, limits, deadline)
                        return
                    at = at.join(response.headers["location"])
                finally:
                    response.close()
            except (httpx.TransportError, httpx.InvalidURL) as error:
                raise _unreachable(url, str(error) or type(error).__name__) from error
    raise AttemptError("source_refused", f"{url} is redirected more than {_MAX_REDIRECTS} times.")


def _request(client: httpx.Client, url: httpx.URL, allowed: Sequence[IPv4Network | IPv6Network]) -> httpx.Request:
    if url.scheme != "https":
        raise AttemptError("source_refused", f"The data would be fetched from {url}, which is not https.")
    try:
        found = socket.getaddrinfo(url.host, url.port or 443, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise _unreachable(str(url), f"the name {url.host} is not known: {error}") from error
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if refused(address, allowed):
            raise AttemptError(
                "source_refused",
                f"{url.host} is at {address}, which is no address on the public internet and in none of the networks "
                "that PLUMBLINE_ALLOW_PRIVATE_URLS lists.",
            )
    return client.build_request(
        "GET",
        url.copy_with(host=addresses[0]),
        headers={"Host": url.netloc.decode(), "Accept-Encoding": "identity"},
        extensions={"sni_hostname": url.host},  # and the name that the certificate must be for
    )


def _save(response: httpx.Response, url: str, target: Path, limits: Limits, deadline: float) -> None:
    if response.status_code >= 500 or response.status_code == 429:
        raise _unreachable(url, f"the server answers {response.status_code}")
    if response.status_code != 200:
        raise AttemptError("source_not_found", f"{url} is answered with {response.status_code}: check `data.train`.")
    announced = response.headers.get("content-length", "")
    size = int(announced) if announced.isdecimal() else 0
    _require_size(size, url, limits)
    size = 0
    with target.open("wb", buffering=_BLOCK) as out:
        for block in response.iter_raw():  # as it comes: a slow server must not hold up the look at the clock
            size += len(block)
            _require_size(size, url, limits)
            if time.monotonic() > deadline:
                raise AttemptError(
                    "source_too_slow",
                    f"{url} was not fetched within {limits.timeout_s:g} s, only {size} bytes of it: put the file "
                    "nearer, or ask the operator for more time (PLUMBLINE_DOWNLOAD_TIMEOUT_S).",
                )
            out.write(block)


def _require_size(size: int, url: str, limits: Limits) -> None:
    if size > limits.max_bytes:
        raise AttemptError(
            "source_too_large",
            f"{url} has more than {limits.max_bytes} bytes, which is the most that is fetched: send less, or ask the "
            "operator for more (PLUMBLINE_MAX_DOWNLOAD_BYTES).",
        )


def _unreachable(url: str, why: str) -> AttemptError:
    return AttemptError("source_unreachable", f"{url} could not be fetched: {why}.", Fault.SYSTEM)
