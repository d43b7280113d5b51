"""Fixtures: the gateway's process, and a Prometheus that scrapes it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import (
    StartGateway,
    _loopback_needs_no_proxy,
    demo_server,
    gateway,
    make_gateway,
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
    "make_gateway",
    "replay_server",
    "start_gateway",
]

IN_THE_GATE = frozenset(
    {
        "test_under_load_the_page_is_clean_and_every_panel_and_rule_has_data",
        "test_a_backend_that_is_down",
    }
)
"""Of what takes a Prometheus, or a package index, and the better part of a minute each."""

Watch = Callable[[Gateway], Awaitable[Prometheus]]


@pytest.fixture
def in_full(request: pytest.FixtureRequest) -> None:
    """Skips what is not in the gate."""
    if request.node.originalname not in IN_THE_GATE and os.environ.get("DEPLOY") != "all":
        pytest.skip("takes long: `make deploy` runs it")


@pytest.fixture
async def watch(tmp_path: Path, in_full: None) -> AsyncIterator[Watch]:
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
