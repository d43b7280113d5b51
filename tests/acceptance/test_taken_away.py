"""The files are taken away from a running gateway: what clients and operators see of it."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.harness import Gateway, Reply, payload, within
from tests.acceptance.replay import ReplayServer, replay

BODY = {"model": "tiny", "input": "Hi", "background": True}
FILES = ("", "-wal", "-shm")


def _beside(gateway: Gateway, suffix: str) -> Path:
    return gateway.database.with_name(gateway.database.name + suffix)


async def _store_is(gateway: Gateway, state: str) -> None:
    async def look() -> None:
        while (await _readyz(gateway))["store"] != state:
            pass

    await within(look())


async def _readyz(gateway: Gateway) -> dict[str, str]:
    async with gateway.http.get(f"{gateway.admin}/readyz") as answer:
        assert answer.status == 200, "plain requests, polls and streams go on"
        page: dict[str, str] = await answer.json()
        return page


async def _create_until_refused(gateway: Gateway) -> tuple[list[str], Reply]:
    accepted = []
    while (answer := await gateway.call("POST", "/responses", BODY)).status == 200:
        accepted.append(answer.json()["id"])
    return accepted, answer


async def test_what_was_deleted_is_there_after_a_kill_also_the_stream_that_went_on(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    early = (await gateway.call("POST", "/responses", BODY)).json()["id"]
    await gateway.ended(early)
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    async with gateway.events("/responses", BODY | {"stream": True}) as events:
        seen = [await within(anext(events))]
        await within(held.held.wait())
        for suffix in FILES:
            _beside(gateway, suffix).unlink()
        accepted, refusal = await _create_until_refused(gateway)
        assert (refusal.status, refusal.error["code"]) == (503, "store_failing")
        assert refusal.headers["retry-after"].isdigit()
        held.release.set()
        seen += [event async for event in events]
    streamed = payload(seen[0])["response"]["id"]
    for response_id in accepted:
        assert (await gateway.ended(response_id))["status"] == "completed"
    assert await gateway.metric("backburner_store_restored_total") == 1
    await gateway.kill9()
    await gateway.restart()
    assert await gateway.replay(streamed) == b"".join(seen)
    for response_id in (early, *accepted):
        found = await gateway.call("GET", f"/responses/{response_id}")
        assert (found.status, found.json()["status"]) == (200, "completed")


async def test_what_was_moved_goes_on_and_is_used_again_when_it_is_back(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    async with gateway.events("/responses", BODY | {"stream": True}) as events:
        seen = [await within(anext(events))]
        await within(held.held.wait())
        elsewhere = gateway.database.with_name("elsewhere")
        elsewhere.mkdir()
        for suffix in FILES:
            _beside(gateway, suffix).rename(elsewhere / _beside(gateway, suffix).name)
        await _store_is(gateway, "taken_away")
        assert (await _readyz(gateway))["status"] == "degraded"
        assert await gateway.metric('backburner_store_state{state="taken_away"}') == 1
        _, refusal = await _create_until_refused(gateway)
        assert (refusal.status, refusal.error["code"]) == (503, "store_failing")
        assert (await gateway.call("POST", "/responses", {"model": "tiny", "input": "plain"})).status == 200
        held.release.set()
        seen += [event async for event in events]
    assert payload(seen[-1])["type"] == "response.completed"
    streamed = payload(seen[0])["response"]["id"]
    whole = b"".join(seen)
    assert await gateway.replay(streamed) == whole
    for suffix in FILES:
        (elsewhere / _beside(gateway, suffix).name).rename(_beside(gateway, suffix))
    await _store_is(gateway, "ok")
    late = (await gateway.call("POST", "/responses", BODY)).json()["id"]
    await gateway.ended(late)
    await gateway.kill9()
    await gateway.restart()
    assert await gateway.replay(streamed) == whole
    assert (await gateway.call("GET", f"/responses/{late}")).json()["status"] == "completed"
