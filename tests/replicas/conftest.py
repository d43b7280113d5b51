"""Fixtures: whether to run at all, and what the gateways stand on."""

from __future__ import annotations

import os

import pytest

from tests.acceptance.conftest import _loopback_needs_no_proxy, database_server, replicas

__all__ = ["_loopback_needs_no_proxy", "database_server", "replicas"]


@pytest.fixture(scope="session", autouse=True)
def in_full() -> None:
    """These mostly wait: for a lease that runs out, or for a database that is away."""
    if os.environ.get("REPLICAS") != "all":
        pytest.skip("takes long: `make replicas` runs it")
