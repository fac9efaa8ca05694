"""One POST to a webhook's address, and what came of it.

The host is resolved here, every address that the name has is checked, and the connection goes to an address that was
checked, so a name cannot mean something else a moment later (DNS rebinding). Redirects are not followed: they would
lead where nothing was checked.
"""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

import httpx

from service.spec.addresses import refused
from service.text import storable

_READ_BYTES = 4096  # of the answer; the rest is not waited for
_EXCERPT = 500  # characters that the delivery log keeps

Networks = Sequence[IPv4Network | IPv6Network]


@dataclass(frozen=True)
class Outcome:
    """status: of the answer, if one came. excerpt: its first characters. error: why it counts as not delivered."""

    status: int | None = None
    excerpt: str | None = None
    error: str | None = None


def client() -> httpx.AsyncClient:
    """For `post`. It uses no proxy, which would resolve names anew, and no connection twice: a pool would hand the
    connection made for one name to another name at the same address, whose certificate nobody has checked."""
    return httpx.AsyncClient(
        trust_env=False,
        timeout=None,  # noqa: S113 - `post` has one for all of it
        verify=httpx.create_ssl_context(),  # which reads SSL_CERT_FILE all the same
        limits=httpx.Limits(max_keepalive_connections=0),
    )


async def post(
    client: httpx.AsyncClient, url: str, headers: dict[str, str], body: bytes, allowed: Networks, timeout_s: float
) -> Outcome:
    """Never raises for what the receiver or the network does. timeout_s: for all of it, from look-up to answer."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _post(client, httpx.URL(url), headers, body, allowed)
    except (TimeoutError, httpx.TimeoutException):
        return Outcome(error=f"No answer within {timeout_s:g} s.")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Outcome(error=f"The address could not be reached: {_plain(str(error) or type(error).__name__)}")


async def _post(
    client: httpx.AsyncClient, url: httpx.URL, headers: dict[str, str], body: bytes, allowed: Networks
) -> Outcome:
    host = url.raw_host.decode("ascii")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, url.port or (443 if url.scheme == "https" else 80), type=socket.SOCK_STREAM
        )
    except (socket.gaierror, UnicodeError) as error:
        return Outcome(error=f"The name {host} is not known: {error}")
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if refused(address, allowed):
            return Outcome(
                error=f"{host} is at {address}, which is no address on the public internet and in none of the networks "
                "that PLUMBLINE_ALLOW_PRIVATE_URLS lists."
            )
        if url.scheme != "https" and not refused(address, ()):
            return Outcome(error=f"{host} is at {address}, on the public internet: http:// is for private networks.")
    return await _first_that_connects(client, url, headers, body, addresses)


async def _first_that_connects(
    client: httpx.AsyncClient, url: httpx.URL, headers: dict[str, str], body: bytes, addresses: Sequence[str]
) -> Outcome:
    for address in addresses:
        request = client.build_request(
            "POST",
            url.copy_with(host=address),
            content=body,
            headers=headers | {"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"},
            # and the name that the certificate must be for
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        )
        try:
            response = await client.send(request, stream=True)
        except httpx.ConnectError:
            if address == addresses[-1]:
                raise
            continue
        try:
            return _outcome(response, await _beginning(response))
        finally:
            await response.aclose()
    raise AssertionError("a name that is known has an address")


async def _beginning(response: httpx.Response) -> bytes:
    read = b""
    async for block in response.aiter_raw(_READ_BYTES):
        read += block
        if len(read) >= _READ_BYTES:
            break
    return read[:_READ_BYTES]


def _outcome(response: httpx.Response, content: bytes) -> Outcome:
    excerpt = _plain(content.decode(errors="replace"))
    if response.is_success:
        return Outcome(response.status_code, excerpt)
    hint = " Redirects are not followed." if response.is_redirect else ""
    return Outcome(response.status_code, excerpt, f"The receiver answered {response.status_code}.{hint}")


def _plain(text: str) -> str:
    return str(storable(text))[:_EXCERPT]
