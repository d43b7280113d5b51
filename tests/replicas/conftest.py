"""Fixtures: whether to run at all, what the gateways stand on, and the figures at the end."""

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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the tests have counted and measured."""
    for report in terminalreporter.getreports("passed"):
        if report.user_properties:
            figures = ", ".join(f"{name}: {value}" for name, value in report.user_properties)
            terminalreporter.write_line(f"{report.nodeid}: {figures}")
