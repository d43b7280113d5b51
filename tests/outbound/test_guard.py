"""Which addresses may be dialled; `test_receivers.py` counts the dials."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.outbound.guard import AddressDenied, guarded, may_be_dialled

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4001:830::200e"]
DENIED = {
    "this host": ["0.0.0.0", "0.1.2.3", "::"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fdff::1"],
    "link-local, with clouds' metadata": ["169.254.169.254", "fe80::1", "fe80::1%eth0", "fd00:ec2::254"],
    "site-local": ["fec0::1"],
    "carrier's NAT": ["100.64.0.1", "100.100.100.200", "100.127.255.255"],
    "protocol assignments": ["192.0.0.1", "192.0.0.192", "192.0.0.171"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "benchmarks": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "6to4 relays": ["192.88.99.1"],
    "multicast": ["224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1"],
    "reserved and broadcast": ["240.0.0.1", "255.255.255.255"],
    "IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8"],
    "IPv4-compatible and -translated": ["::127.0.0.1", "::8.8.8.8", "::ffff:0:127.0.0.1"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::a00:1"],
    "6to4": ["2002:7f00:1::", "2002:808:808::1"],
    "Teredo": ["2001::1", "2001:0:7f00:1::"],
    "discard": ["100::1"],
    "segment routing": ["5f00::1"],
    "no address": ["", "localhost", "127.1", "0x7f.1", "2130706433", "1.1.1.1:443", "[::1]"],
}


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_dialled(address: str) -> None:
    assert may_be_dialled(address, ())


@pytest.mark.parametrize(
    ("kind", "address"), [(kind, address) for kind, listed in DENIED.items() for address in listed]
)
def test_no_other_address_may_be_dialled(kind: str, address: str) -> None:
    assert not may_be_dialled(address, ())


def test_networks_that_are_allowed_may_be_dialled_and_no_others() -> None:
    allowed = [ip_network("10.20.0.0/16"), ip_network("fd00:1::/32")]
    assert may_be_dialled("10.20.255.1", allowed)
    assert may_be_dialled("fd00:1::5", allowed)
    assert may_be_dialled("8.8.8.8", allowed)
    for other in ("10.21.0.1", "fd00:2::5", "::ffff:10.20.0.1", "127.0.0.1"):
        assert not may_be_dialled(other, allowed)


def test_a_socket_is_made_for_an_address_that_may_be_dialled_only() -> None:
    make = guarded(())
    with make((2, 1, 6, "", ("8.8.8.8", 443))) as made:
        assert (made.family, made.type) == (2, 1)
    with pytest.raises(AddressDenied):
        make((2, 1, 6, "", ("127.0.0.1", 443)))
    with pytest.raises(AddressDenied):
        make((10, 1, 6, "", ("::1", 443, 0, 0)))
