"""Several gateways on one PostgreSQL, as processes, and the model server behind them."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from demo.postgres import Postgres
from tests.acceptance.harness import Gateway
from tests.torture.model import Model, create_body

ENDINGS = ("response.completed", "response.failed", "response.incomplete", "response.cancelled")
NEVER_ENDS_AT_FIRST = {"deltas": 50, "fault": "hang", "after": 5, "calls": 1}
TAKEN_OVER_S = 10.0
"""From the death of a replica to the end, or the new start, of its last job."""
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
        if (
            os.environ.get("PUSHED") and "PYTHONPATH" not in environ
        ):  # an older one would not know the setting
            given.setdefault("BACKBURNER_STORE__PEER_LISTEN", "127.0.0.1:0")
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


async def state(gateway: Gateway, response_id: str) -> dict[str, object]:
    """A response, as this gateway shows it."""
    reply = await gateway.call("GET", f"/responses/{response_id}")
    assert reply.status == 200, reply.body
    found: dict[str, object] = reply.json()
    return found


async def until_ended(gateway: Gateway, response_id: str, seconds: float = 30) -> dict[str, object]:
    """The same, once it has ended."""
    async with asyncio.timeout(seconds):
        while (found := await state(gateway, response_id))["status"] in ("queued", "in_progress"):
            await asyncio.sleep(0.1)
    return found


async def read(gateway: Gateway, response_id: str, seen: list[bytes]) -> None:
    """Follow a stream to its end."""
    async with gateway.events(f"/responses/{response_id}?stream=true") as events:
        async for event in events:
            seen.append(event)  # noqa: PERF401  (whoever asks meanwhile sees how far it is)


async def running_at(replicas: Replicas, shown: int, hidden: int) -> tuple[list[str], list[str]]:
    """Responses that the first replica runs, since it was the only one; then there are three."""
    (first,) = await replicas.start(1)
    followed = [await create(first, f"s{number}", deltas=3000, pace_ms=10) for number in range(shown)]
    polled = [
        await create(first, f"h{number}", stream=False, **NEVER_ENDS_AT_FIRST) for number in range(hidden)
    ]
    async with asyncio.timeout(20):
        while len(await replicas.model.calls()) < shown + hidden:
            await asyncio.sleep(0.05)
    await replicas.start(2)
    return followed, polled
