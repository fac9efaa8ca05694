"""Which network addresses a training file may be fetched from: public ones, and private ones that are allowed."""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_NAT64 = IPv6Network("64:ff9b::/96")
_IPV6_INTERNET = IPv6Network("2000::/3")  # all that is given out; beyond it lie forms that wrap IPv4, and sites


def refused(address: str, allowed: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Whether `address` (numeric) is neither public nor in an allowed network.

    IPv6 forms that carry an IPv4 address are taken for that address, which is where packets to them end.
    """
    found = _carried(ip_address(address.partition("%")[0]))
    if any(found.version == network.version and found in network for network in allowed):
        return False
    if isinstance(found, IPv6Address) and found not in _IPV6_INTERNET:
        return True
    return not found.is_global or found.is_multicast


def refuse_literal(host: str, allowed: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Whether `host` is itself an address that is refused, in any spelling that a resolver takes for one (`0x7f.1`,
    `2130706433`). Names are for whoever resolves them."""
    try:
        return refused(host, allowed)
    except ValueError:
        pass
    try:
        return refused(socket.inet_ntoa(socket.inet_aton(host.removesuffix("."))), allowed)
    except OSError:
        return False


def _carried(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo or address
