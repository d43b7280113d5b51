"""Fixtures: the gateway's process that the commands ask."""

from __future__ import annotations

from tests.acceptance.conftest import (
    StartGateway,
    _loopback_needs_no_proxy,
    demo_server,
    gateway,
    make_gateway,
    replay_server,
    start_gateway,
)

__all__ = [
    "StartGateway",
    "_loopback_needs_no_proxy",
    "demo_server",
    "gateway",
    "make_gateway",
    "replay_server",
    "start_gateway",
]
