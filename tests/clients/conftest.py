"""Fixtures: strict model servers, a gateway in front of them, and clients as their registries ship them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import StartGateway, make_gateway, replay_server, start_gateway
from tests.clients.servers import ChatServer, ModelServer, ResponsesServer

__all__ = ["StartGateway", "make_gateway", "replay_server", "start_gateway"]


@pytest.fixture
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outlives the run and is one for all test processes."""
    return tmp_path_factory.getbasetemp().parent


@pytest.fixture(params=["chat", "responses"])
async def model_server(request: pytest.FixtureRequest) -> AsyncIterator[ModelServer]:
    """A server of each kind; its `url` is set."""
    server = ChatServer() if request.param == "chat" else ResponsesServer()
    async with server.running() as url:
        server.url = url
        yield server
