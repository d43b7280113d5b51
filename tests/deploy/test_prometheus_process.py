"""Alerts about the machine under a gateway: each cause is made, and taken away again."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway
from tests.acceptance.replay import ReplayServer
from tests.deploy.conftest import Watch
from tests.deploy.test_prometheus import ASK, _create, _free_port


class Launched(Gateway):
    """A gateway whose disk and clock are as files say."""

    @property
    def slow(self) -> Path:
        return self.database.with_name("slow")

    @property
    def wall(self) -> Path:
        return self.database.with_name("wall")

    def command(self) -> list[str]:
        return ["tests.deploy.launch", str(self.slow), str(self.wall)]


@pytest.fixture
async def launched(tmp_path: Path, replay_server: ReplayServer) -> AsyncIterator[Launched]:
    gateway = Launched(
        replay_server.url,
        tmp_path / "gateway.db",
        BACKBURNER_STORE__DATABASE_BYTES_MAX=2**23,
        BACKBURNER_BACKGROUND__BODY_BYTES_MAX=2**20,
        BACKBURNER_BACKGROUND__EVENT_BYTES_MAX=2**20,
        BACKBURNER_BACKGROUND__EVENTS_BYTES_MAX=2**20,
    )
    gateway.wall.write_text("0")
    try:
        await gateway.start()
        yield gateway
    finally:
        await gateway.close()


async def test_a_disk_that_is_slow(launched: Launched, watch: Watch) -> None:
    prometheus = await watch(launched)
    launched.slow.touch()
    is_known = asyncio.Event()

    async def create() -> None:
        while not is_known.is_set():
            await _create(launched)

    creating = asyncio.create_task(create())
    await prometheus.fires("BackburnerDiskSlow")
    launched.slow.unlink()
    await prometheus.clears("BackburnerDiskSlow")
    is_known.set()
    await creating


async def test_a_wall_clock_that_jumps(launched: Launched, watch: Watch) -> None:
    prometheus = await watch(launched)
    launched.wall.write_text("7200")
    await launched.line(event="clock_jump")
    await prometheus.fires("BackburnerClockJumped")
    await prometheus.clears("BackburnerClockJumped")


async def test_a_store_that_fills(launched: Launched, watch: Watch) -> None:
    prometheus = await watch(launched)
    ids = []
    # The ratio is measured once a second, so that this may end at the nine tenths where creates are refused.
    while (answer := await launched.call("POST", "/responses", {**ASK, "input": "x" * 50_000})).status == 200:
        ids.append(answer.json()["id"])
        await launched.ended(ids[-1])
        if await launched.metric("backburner_store_used_ratio") > 0.76:
            break
    await prometheus.fires("BackburnerStoreFilling")
    for response_id in ids:
        await launched.call("DELETE", f"/responses/{response_id}")
    await prometheus.clears("BackburnerStoreFilling")
    launched.lines = [line for line in launched.lines if line["event"] != "store"]  # nearly full, it may say


async def test_file_descriptors_that_run_out(gateway: Gateway, watch: Watch) -> None:
    prometheus = await watch(gateway)
    soft, hard = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)
    taken = int(await gateway.metric("process_open_fds"))
    resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (taken + 5, hard))
    await prometheus.fires("BackburnerFileDescriptors")
    resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (soft, hard))
    await prometheus.clears("BackburnerFileDescriptors")


async def test_a_log_that_nobody_reads(start_gateway: StartGateway, watch: Watch) -> None:
    gateway = await start_gateway(BACKBURNER_LOG__WAITING_BYTES_MAX=65536)
    prometheus = await watch(gateway)
    gateway.stop_reading()
    while not await gateway.metric("backburner_log_lines_dropped_total"):
        await _create(gateway)
    await prometheus.fires("BackburnerLogLinesDropped")
    gateway.read_on()
    await gateway.line(event="log_lines_dropped")
    await prometheus.clears("BackburnerLogLinesDropped")


async def test_a_gateway_that_is_started_again_and_again(start_gateway: StartGateway, watch: Watch) -> None:
    gateway = await start_gateway("--admin-port", str(_free_port()))
    prometheus = await watch(gateway)
    fires = asyncio.create_task(prometheus.fires("BackburnerRestarts"))
    while not fires.done():
        await gateway.kill9()
        await gateway.restart()
        await prometheus.until('up{job="backburner"} == 1')
    await fires
    await prometheus.clears("BackburnerRestarts")
