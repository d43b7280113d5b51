"""`backburner job`: all about one response."""

from __future__ import annotations

from tests.acceptance.conftest import StartGateway
from tests.acceptance.operator import seen
from tests.acceptance.replay import ReplayServer, replay
from tests.acceptance.test_admin_api import ONE_SLOT, one_runs_and_one_waits
from tests.command.asking import asked, created


async def test_it_says_why_a_response_waits_and_what_if_the_gateway_dies(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    held, runs, waits = await one_runs_and_one_waits(gateway, replay_server)
    waiting = await asked(gateway, "job", waits[:14])
    assert waiting.status == 0
    assert f"Id                       {waits}" in waiting.out
    assert "All 1 slots of default are taken." in waiting.out
    assert "It keeps its place in the queue" in waiting.out
    running = await asked(gateway, "job", runs)
    steps = [line[1] for line in running.lines[running.lines.index(["Timeline"]) + 2 :]]
    assert steps == ["queued", "in_progress", "called", "answered"]
    assert "It runs again from its start" in running.out
    told = (await asked(gateway, "job", runs, "-o", "json")).json()
    kept = await seen(gateway, f"jobs/{runs}")
    assert told.keys() == kept.keys()
    assert told["timeline"][0] == kept["timeline"][0]
    held.release.set()
    await gateway.log_of_end(waits)
    over = await asked(gateway, "job", waits)
    assert "Nothing: it is over" in over.out
    assert "Kept until" in over.out


async def test_an_error_and_a_chain_are_shown(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway()
    first = await created(gateway)
    await gateway.ended(first)
    replay_server.script(replay("vllm/responses-error-bad-model-stream"))
    second = await created(gateway, previous_response_id=first)
    await gateway.ended(second)
    shown = await asked(gateway, "job", second)
    assert ["Error", "model_not_found"] in shown.lines
    assert ["Goes", "on", "from", first] in shown.lines
    assert "code model_not_found" in shown.out
    assert second in (await asked(gateway, "job", first)).out
