"""Several gateways on one PostgreSQL, as processes, and the model server behind them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from demo.postgres import Postgres
from tests.acceptance.harness import Gateway
from tests.torture.model import Model, create_body

SEALING = f"test:{base64.b64encode(b's' * 32).decode()}"


class Replica(Gateway):
    """One of several gateways: what it stores lies in a database that is not its own."""

    def kept_in(self) -> list[str]:
        return []


class Replicas:
    """All of them.

    Attributes:
        all: Those that were started, the dead ones too.
    """

    def __init__(self, directory: Path, server: Postgres, url: str, model: Model) -> None:
        self.directory = directory
        self.server = server
        self.url = url
        self.model = model
        self.all: list[Replica] = []
        directory.joinpath("sealing-keys").write_text(f"{SEALING}\n")
        directory.joinpath("sealing-keys").chmod(0o600)

    def make(self, **environ: object) -> Replica:
        """One more, not started."""
        given = {
            "BACKBURNER_STORE__URL": self.url,
            "BACKBURNER_CREDENTIALS__SEALING_KEYS_FILE": self.directory / "sealing-keys",
            "BACKBURNER_UPSTREAM__CONCURRENCY_MAX": 200,
            "BACKBURNER_SERVER__DRAIN_TIMEOUT_S": 3,
            **environ,
        }
        directory = self.directory / f"replica-{len(self.all)}"
        directory.mkdir()
        self.all.append(Replica(self.model.url, directory / "unused.db", **given))
        return self.all[-1]

    async def start(self, count: int, **environ: object) -> list[Replica]:
        """Some more."""
        made = [self.make(**environ) for _ in range(count)]
        for replica in made:
            await replica.start()
        return made

    async def close(self) -> None:
        """End them, however they are."""
        for replica in self.all:
            await replica.leave()
            if replica.is_running:
                await replica.stop()


@asynccontextmanager
async def replicas_of(directory: Path, server: Postgres, url: str) -> AsyncIterator[Replicas]:
    """A database, a model server, and gateways as they are asked for."""
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(Model())
        made = Replicas(directory, server, url, model)
        stack.push_async_callback(made.close)
        yield made


async def create(gateway: Gateway, tag: str, *, stream: bool = True, **script: Any) -> str:
    """A background response; its id."""
    body = create_body(tag, stream=False, **script)
    if not stream:
        reply = await gateway.call("POST", "/responses", body)
        assert reply.status == 200, reply.body
        return str(reply.json()["id"])
    async with gateway.events("/responses", {**body, "stream": True}) as events:
        async for event in events:
            return str(event.split(b'"id":"', 1)[1].split(b'"', 1)[0].decode())
    raise AssertionError("a stream has a first event")
