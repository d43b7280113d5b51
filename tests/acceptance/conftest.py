"""Fixtures: the gateway's process, the model servers behind it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from demo.model_server import ModelServer, listening, make_app
from demo.postgres import Postgres
from tests.acceptance.fleet import Fleet
from tests.acceptance.harness import Gateway
from tests.acceptance.replay import ReplayServer
from tests.acceptance.spread import IS_SPREAD, Spread, front
from tests.support.databases import Databases, a_postgres, databases
from tests.support.replicas import Replicas, replicas_of

__all__ = ["databases"]

StartGateway = Callable[..., Awaitable[Gateway]]


@pytest.fixture(autouse=True)
def _loopback_needs_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def replay_server() -> AsyncIterator[ReplayServer]:
    """The model server that replays recordings."""
    server = ReplayServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def demo_server() -> AsyncIterator[str]:
    """The demo's model server, fast; its base URL."""
    async with listening(make_app(ModelServer(words_per_second=400)), "127.0.0.1", 0) as root:
        yield f"{root}/v1"


MakeGateway = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def make_gateway(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeGateway]:
    """Makes gateways, each on a file of its own; or three that look like one, on a database of their own."""
    async with AsyncExitStack() as stack:

        async def make(upstream: str, *flags: str, **environ: object) -> Gateway:
            if not IS_SPREAD:
                return Gateway(upstream, tmp_path / f"gateway-{next(numbers)}.db", *flags, **environ)
            directory = tmp_path / f"gateways-{next(numbers)}"
            directory.mkdir()
            databases: Databases = request.getfixturevalue("databases")
            url = await stack.enter_async_context(databases.cleared())
            way = await stack.enter_async_context(front())
            return Spread(way, url, upstream, directory, *flags, **environ)

        numbers = itertools.count()
        yield make


@pytest.fixture
async def start_gateway(
    make_gateway: MakeGateway, replay_server: ReplayServer
) -> AsyncIterator[StartGateway]:
    """Starts gateways: flags as arguments, environment as keywords; ends them, each with status 0."""
    started: list[Gateway] = []

    async def start(*flags: str, upstream: str | None = None, **environ: object) -> Gateway:
        gateway = await make_gateway(replay_server.url if upstream is None else upstream, *flags, **environ)
        started.append(gateway)
        return await gateway.start()

    yield start
    replay_server.release_all()
    for gateway in started:
        await gateway.close()


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> Gateway:
    """A gateway with default settings in front of `replay_server`."""
    return await start_gateway()


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Model servers and gateways as processes; all are ended, the gateways with status 0."""
    started = Fleet(tmp_path)
    try:
        yield started
    finally:
        await started.close()


@pytest.fixture(autouse=True)
def _is_spread(request: pytest.FixtureRequest) -> None:
    """What is about one process is left out where there are several."""
    marker = request.node.get_closest_marker("one_gateway")
    if IS_SPREAD and marker is not None:
        pytest.skip(marker.args[0])


@pytest.fixture(scope="module")
def database_server() -> Iterator[Postgres]:
    """A PostgreSQL of the tests' own."""
    with a_postgres() as started:
        yield started


@pytest.fixture
async def replicas(tmp_path: Path, database_server: Postgres) -> AsyncIterator[Replicas]:
    """Gateways on one database, as they are asked for."""
    async with replicas_of(tmp_path, database_server, await database_server.new_database()) as made:
        yield made
