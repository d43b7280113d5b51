"""Which addresses may be dialled for a URL that somebody else has chosen.

Judged where a socket is made, for the address that it is made for. Whatever is judged earlier is not what is
dialled: a name resolves anew (DNS rebinding), and an address has many spellings.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final

Networks = Sequence[IPv4Network | IPv6Network]
SocketFactory = Callable[[tuple[Any, ...]], socket.socket]

_GLOBAL_UNICAST_6: Final = ip_network("2000::/3")
"""What IPv6 has of public addresses (RFC 4291, section 2.4). Loopback, link- and site-local, multicast,
IPv4-mapped and NAT64 addresses (64:ff9b::/96, 64:ff9b:1::/48) are all outside."""

_DENIED: Final = tuple(
    ip_network(text)
    for text in (
        # `is_global` of Python 3.11 says yes to these (CVE-2024-4032 and later).
        "192.0.0.0/24",  # RFC 6890: protocol assignments; clouds have had metadata there
        "192.88.99.0/24",  # RFC 7526: 6to4 relays
        "100.64.0.0/10",  # RFC 6598: behind a carrier's NAT; clouds have metadata there
        "2001::/23",  # RFC 2928: Teredo (2001::/32) and others that carry an IPv4 address
        "2002::/16",  # RFC 3056: 6to4, which carries one too
        "3fff::/20",  # RFC 9637: documentation
    )
)


class AddressDenied(OSError):
    """This address is not dialled."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, os.strerror(errno.EACCES))  # the same text for every address


def guarded(allowed: Networks) -> SocketFactory:
    """Makes sockets for public addresses and those in `allowed`; raises `AddressDenied` for others."""

    def make(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        if not may_be_dialled(address[0], allowed):
            raise AddressDenied
        return socket.socket(family, kind, protocol)

    return make


def may_be_dialled(text: str, allowed: Networks) -> bool:
    """Whether an address, as a resolver gives it, is public or allowed."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if any(address in network for network in allowed):
        return True
    if any(address in network for network in _DENIED) or address.is_multicast or not address.is_global:
        return False
    return isinstance(address, IPv4Address) or address in _GLOBAL_UNICAST_6
