"""Fixtures: the gateway's process, and a Prometheus that scrapes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import (
    StartGateway,
    _loopback_needs_no_proxy,
    demo_server,
    gateway,
    replay_server,
    start_gateway,
)
from tests.acceptance.harness import Gateway
from tests.deploy.prometheus import PROMETHEUS, Prometheus

__all__ = [
    "StartGateway",
    "_loopback_needs_no_proxy",
    "demo_server",
    "gateway",
    "replay_server",
    "start_gateway",
]

Watch = Callable[[Gateway], Awaitable[Prometheus]]


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    """Starts a Prometheus that scrapes a gateway; ends it."""
    if PROMETHEUS is None:
        pytest.skip("no prometheus: apt-get install prometheus has it, with promtool")
    started: list[Prometheus] = []

    async def start(gateway: Gateway) -> Prometheus:
        prometheus = Prometheus(tmp_path / f"prometheus-{len(started)}")
        started.append(prometheus)
        await prometheus.start(gateway.admin)
        return prometheus

    yield start
    for prometheus in started:
        await prometheus.stop()
