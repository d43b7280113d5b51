"""`backburner tail`: the text as it comes, to its end."""

from __future__ import annotations

import json
from typing import Any

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, frames, payload, within
from tests.acceptance.operator import get
from tests.acceptance.replay import Answer, ReplayServer, replay
from tests.acceptance.test_admin_api import CONTENT
from tests.command.asking import asked, created, following, port_of, terminal


def _text(final: dict[str, Any]) -> str:
    text: str = final["output"][-1]["content"][0]["text"]
    return text


async def test_it_prints_the_text_as_it_comes_and_nothing_else(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**CONTENT)
    held = replay_server.script(replay("vllm/responses-stream", hold_after=10))
    response_id = await created(gateway)
    async with following("tail", response_id[:14], "--admin-port", port_of(gateway)) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        begun = await within(tail.stdout.read(1))
        held.release.set()
        whole = begun + await within(tail.stdout.read())
        assert await within(tail.wait()) == 0
        assert b"backburner: completed after " in await tail.stderr.read()
    final = await gateway.ended(response_id)
    assert whole.decode() == f"{_text(final)}\n"

    events = await asked(gateway, "tail", response_id, "-o", "json")
    raw = (await get(gateway, f"jobs/{response_id}/events")).body
    assert [json.loads(line) for line in events.out.splitlines()] == [payload(each) for each in frames(raw)]
    later = await asked(gateway, "tail", response_id, "-o", "json", "--after", "5")
    assert json.loads(later.out.splitlines()[0])["sequence_number"] == 6

    replay_server.script(replay("vllm/responses-error-bad-model-stream"))
    failed = await created(gateway)
    ended = await asked(gateway, "tail", failed)
    assert (ended.status, ended.out) == (3, "")
    assert "failed (model_not_found) after" in ended.err

    # What a terminal would obey is shown there, and goes through a pipe as it is.
    replay_server.script(_saying("red: \x1b[31m, bell: \a, line:\nend"))
    odd = await created(gateway)
    assert (await asked(gateway, "tail", odd)).out == "red: \x1b[31m, bell: \a, line:\nend\n"
    async with terminal("tail", odd, "--admin-port", port_of(gateway)) as screen:
        assert await screen.status() == 0
        assert "red: �[31m, bell: �, line:" in bytes(screen.raw).decode()


def _saying(text: str) -> Answer:
    """A recorded answer with another text, as vLLM would stream it."""
    head = {"type": "response.output_text.delta", "item_id": "m", "output_index": 0, "content_index": 0}
    response: dict[str, Any] = {
        "id": "r",
        "object": "response",
        "model": "tiny",
        "output": [],
        "status": "in_progress",
    }
    item = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
    part = {"type": "output_text", "text": text, "annotations": []}
    over = {**response, "status": "completed", "output": [{**item, "content": [part]}]}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {**head, "type": "response.content_part.added", "part": {**part, "text": ""}},
        {**head, "delta": text},
        {**head, "type": "response.output_text.done", "text": text},
        {**head, "type": "response.content_part.done", "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": {**item, "content": [part]}},
        {"type": "response.completed", "response": over},
    ]
    return Answer([f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events])


async def test_it_goes_on_where_it_was_when_the_gateway_was_killed(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**CONTENT)
    replay_server.script(replay("vllm/responses-stream", hold_after=10))
    response_id = await created(gateway)
    port = port_of(gateway)
    async with following("tail", response_id, "--admin-port", port) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        await within(tail.stdout.read(1))
        await gateway.kill9()
        assert b"trying again" in await within(tail.stderr.readline())
        gateway.flags = ("--admin-port", port)
        await gateway.restart()
        assert await within(tail.wait()) == 0
        said = (await tail.stderr.read()).decode()
        rest = (await tail.stdout.read()).decode()
    assert "it runs again from its start; what came before is void" in said
    assert rest.endswith(f"\n{_text(await gateway.ended(response_id))}\n")


async def test_where_text_is_hidden_it_says_how_far_it_is(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    response_id = await created(gateway)
    await within(held.held.wait())
    async with following("tail", response_id, "--admin-port", port_of(gateway)) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert b"ui.content: true shows them. This is how far it is:" in await within(tail.stderr.readline())
        assert b"in_progress, " in await within(tail.stdout.readline())
        held.release.set()
        rest = await within(tail.stdout.read())
        assert b"completed, " in rest
        assert await within(tail.wait()) == 0
    text = _text(await gateway.ended(response_id))
    assert text.encode() not in rest


async def test_where_text_is_hidden_it_goes_on_when_the_gateway_was_killed_as_well(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    response_id = await created(gateway)
    await within(held.held.wait())
    port = port_of(gateway)
    async with following("tail", response_id, "--admin-port", port) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert b"in_progress, " in await within(tail.stdout.readline())
        await gateway.kill9()
        await within(tail.stderr.readline())
        assert b"trying again" in await within(tail.stderr.readline())
        gateway.flags = ("--admin-port", port)
        await gateway.restart()
        assert await within(tail.wait()) == 0
        assert b"completed, " in await tail.stdout.read()
