"""`backburner top`: how it stands, where there is no terminal."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.receivers import Answer, Receiver
from tests.acceptance.replay import ReplayServer
from tests.acceptance.test_admin_api import ONE_SLOT, one_runs_and_one_waits
from tests.acceptance.test_webhooks import told
from tests.command.asking import asked, created


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as one:
        yield one


async def test_it_says_once_how_it_stands(start_gateway: StartGateway, replay_server: ReplayServer) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    held, runs, waits = await one_runs_and_one_waits(gateway, replay_server)
    shown = await asked(gateway, "top")
    assert shown.status == 0
    assert "1 running, 1 waiting, the oldest for" in shown.out
    backend = shown.lines[shown.lines.index(["Backends"]) + 2]
    assert backend[:4] == ["default", "1", "1", "1"]
    assert backend[6] == "1/1"
    assert backend[-2:] == ["slot:", "1"]
    oldest = [line[0] for line in shown.lines if line and line[0] in (runs, waits)]
    assert oldest == [runs, waits]
    told = (await asked(gateway, "top", "-o", "json")).json()
    assert (told["running"], told["waiting"]) == (1, 1)
    held.release.set()


async def test_it_says_what_holds_a_backend_and_which_receiver_is_told_nothing(
    start_gateway: StartGateway, receiver: Receiver
) -> None:
    receiver.default = Answer(410)
    gateway = await start_gateway(**told("billing", receiver))
    assert (await asked(gateway, "pause", "default")).status == 0
    response_id = await created(gateway)
    before = await asked(gateway, "top")
    assert "\nAn operator has paused the queue of default" in before.out, "on a line of its own"
    assert "Webhooks that do not arrive" not in before.out
    assert (await asked(gateway, "cancel", response_id)).status == 0
    await gateway.line(event="webhook_endpoint", endpoint="billing", to="disabled")
    shown = await asked(gateway, "top")
    row = shown.lines[shown.lines.index(["Webhooks", "that", "do", "not", "arrive"]) + 2]
    assert row[:2] == ["billing", "disabled"]


def test_a_small_chart_has_a_character_for_each_step() -> None:
    from gateway.command.top import _spark

    assert _spark([0.0, 1.0, None, 4.0]) == " ▂ █"
    assert _spark([0.0, None]) == "-"
    assert _spark([]) == "-"
