"""Several model servers as real processes, and a gateway in front of them with a file of settings."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import yaml

from tests.acceptance.harness import ROOT, WAIT_S, Gateway, Reply

MODEL = "demo-model"
"""What the demo's model servers call their only model; they refuse every other name."""


class ModelProcess:
    """One `python -m demo.model_server`, which can be killed and started again on its port."""

    def __init__(self, *flags: str) -> None:
        self.port = 0
        self._flags = flags
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> ModelProcess:
        """Start, and return when it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "demo.model_server", "--port", str(self.port), *self._flags),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            said = await self._process.stdout.readline()
        self.port = int(said.decode().rpartition(":")[2].removesuffix("/v1\n"))
        return self

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    async def kill9(self) -> None:
        """SIGKILL, if it still runs; its port is closed when this returns."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        async with asyncio.timeout(WAIT_S):
            await self._process.wait()


class Fleet:
    """What one test has started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.servers: list[ModelProcess] = []
        self.gateways: list[Gateway] = []

    async def server(
        self, *more: str, words_per_second: float = 400, slots: int | None = None
    ) -> ModelProcess:
        flags = ["--words-per-second", str(words_per_second), *more]
        server = ModelProcess(*flags, *(["--slots", str(slots)] if slots else []))
        self.servers.append(server)
        return await server.start()

    async def gateway(self, backends: dict[str, dict[str, Any]], **settings: Any) -> Gateway:
        """A gateway with these backends, and no more retry_policy with them than a test has."""
        gateway = Gateway(
            "", self.directory / "fleet.db", "--config", str(self.configure(backends, **settings))
        )
        self.gateways.append(gateway)
        return await gateway.start()

    def configure(self, backends: dict[str, dict[str, Any]], **settings: Any) -> Path:
        """Write the file that the gateway reads at its next start."""
        quick = {"health_interval_s": 0.1, "breaker_open_s": 0.3, "backfill_poll_ms": 50}
        named = {name: {**quick, **backend} for name, backend in backends.items()}
        path = self.directory / "config.yaml"
        path.write_text(yaml.safe_dump({"backends": named, **settings}, sort_keys=False))
        os.chmod(path, 0o600)
        return path

    async def close(self) -> None:
        try:
            for gateway in self.gateways:
                await gateway.close()
        finally:
            for server in self.servers:
                await server.kill9()


async def metrics_of(gateway: Gateway, server: ModelProcess) -> dict[str, float]:
    """What a model server counts."""
    async with gateway.http.get(f"{server.root}/metrics") as answer:
        lines = [line.split(" ") for line in (await answer.text()).splitlines() if line[0] != "#"]
        return {name: float(value) for name, value in lines}


async def asked_of(gateway: Gateway, server: ModelProcess) -> int:
    """How many requests a model server was asked to answer."""
    return int((await metrics_of(gateway, server))["demo:requests_total"])


async def state_of(gateway: Gateway, backend: str) -> dict[str, Any]:
    """What /readyz says about a backend."""
    async with gateway.http.get(f"{gateway.admin}/readyz") as answer:
        found: dict[str, Any] = orjson.loads(await answer.read())["backends"][backend]
        return found


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so; TimeoutError if it never is."""
    async with asyncio.timeout(WAIT_S):
        while not await condition():
            await asyncio.sleep(0.02)


async def ask(gateway: Gateway, *, key: str = "sk-a", **fields: Any) -> Reply:
    """One POST /responses."""
    body = {"model": MODEL, "input": "Count to 3", **fields}
    return await gateway.call("POST", "/responses", body, key=key)


async def submit(gateway: Gateway, *, key: str = "sk-a", **fields: Any) -> str:
    """The id of an accepted background response."""
    accepted = await ask(gateway, key=key, background=True, **fields)
    assert accepted.status == 200, accepted.body
    found: str = accepted.json()["id"]
    return found


async def final(gateway: Gateway, response_id: str, *, key: str = "sk-a") -> dict[str, Any]:
    """A response at its end."""
    await gateway.log_of_end(response_id)
    found: dict[str, Any] = (await gateway.call("GET", f"/responses/{response_id}", key=key)).json()
    return found


def order_of_starts(gateway: Gateway) -> list[str]:
    """Ids of jobs in the order in which they were started."""
    return [line["id"] for line in gateway.lines if line.get("to") == "in_progress"]
