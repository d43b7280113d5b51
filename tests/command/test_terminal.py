"""What the commands are like on a terminal: colours, short ids, and tables that are kept up to date."""

from __future__ import annotations

from tests.acceptance.conftest import StartGateway
from tests.acceptance.replay import ReplayServer
from tests.acceptance.test_admin_api import ONE_SLOT, one_runs_and_one_waits
from tests.command.asking import port_of, terminal

_GREEN, _CYAN = b"\x1b[32m", b"\x1b[36m"


async def test_tables_are_in_colour_and_are_kept_up_to_date(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    held, runs, waits = await one_runs_and_one_waits(gateway, replay_server)
    flags = ("--admin-port", port_of(gateway), "--every", "200ms")
    async with terminal("jobs", "-w", *flags, columns=240) as watch, terminal("top", *flags) as top:
        for screen in (watch, top):
            await screen.shows(runs[:17])
            assert runs[:18] not in screen.text
            assert _CYAN + b"in_progress" in screen.raw
        await top.shows("slot: 1")
        assert b"\x1b[?1049h" in top.raw, "the whole screen, given back at the end"
        held.release.set()
        await watch.shows("completed")
        assert _GREEN + b"completed" in watch.raw
        await top.shows("2 completed")
        async with terminal("jobs", "-o", "wide", "--admin-port", port_of(gateway), columns=200) as wide:
            assert await wide.status() == 0
            assert waits in wide.text
        await gateway.kill9()
        await top.shows("This is how it was:")
        await watch.shows("looking again every 0.2 s")
        for screen in (watch, top):
            screen.type("\x03")
            assert await screen.status() == 130
            assert "Traceback" not in screen.text
        assert b"\x1b[?1049l" in top.raw
