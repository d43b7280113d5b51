"""Plain responses kept as turns: any response can be gone on from, and no answer is changed by it."""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
from contextlib import closing
from itertools import pairwise
from typing import Any

import aiohttp
import orjson
import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import WAIT_S, Gateway, Reply, frames, payload
from tests.acceptance.replay import Answer, ReplayServer, json_answer, recording, replay

RECORD = {"BACKBURNER_CONVERSATIONS__RECORD_FOREGROUND": "true"}
KINDS = ["background", "background-stream", "plain", "plain-stream"]
SERVERS = ["vllm", "llama-slow"]
NAME = "My name is Ada."
ASKED = "What is my name?"


@pytest.fixture
async def keeping(start_gateway: StartGateway) -> Gateway:
    """A gateway that keeps plain turns, in front of `replay_server`."""
    return await start_gateway(**RECORD)


@pytest.fixture
async def demo_gateway(start_gateway: StartGateway, demo_server: str) -> Gateway:
    return await start_gateway(upstream=demo_server, **RECORD)


@pytest.fixture
async def chat_gateway(start_gateway: StartGateway, demo_server: str) -> Gateway:
    return await start_gateway("--api", "chat", upstream=demo_server, **RECORD)


def _body(kind: str, text: str, previous: str | None = None, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "tiny", "input": text, "stream": kind.endswith("stream"), **more}
    if kind.startswith("background"):
        body["background"] = True
    if previous is not None:
        body["previous_response_id"] = previous
    return body


def _final(answer: Reply) -> dict[str, Any]:
    """The Response in an answer of either form."""
    assert answer.status == 200, answer.body
    if answer.headers["content-type"].startswith("text/event-stream"):
        ends = [event for event in frames(answer.body) if event.startswith(b"event: response.completed")]
        streamed: dict[str, Any] = payload(ends[-1])["response"]
        return streamed
    whole: dict[str, Any] = answer.json()
    return whole


async def _turn(
    gateway: Gateway, kind: str, text: str, previous: str | None = None, **more: Any
) -> dict[str, Any]:
    """One turn of a kind, to its end."""
    final = _final(await gateway.call("POST", "/responses", _body(kind, text, previous, **more)))
    return await gateway.ended(final["id"]) if kind == "background" else final


def _text(response: dict[str, Any]) -> str:
    text: str = response["output"][-1]["content"][0]["text"]
    return text


async def _direct(replay_server: ReplayServer, body: dict[str, Any]) -> bytes:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{replay_server.url}/responses", json=body) as answer,
    ):
        return await answer.read()


def _kept(gateway: Gateway) -> int:
    """Number of plain responses in the file."""
    with closing(sqlite3.connect(gateway.database)) as file:
        [[number]] = file.execute("SELECT count(*) FROM job WHERE is_background = 0").fetchall()
        return int(number)


# -- going on


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
async def test_the_model_remembers_between_any_two_responses(
    demo_gateway: Gateway, first: str, second: str
) -> None:
    told = await _turn(demo_gateway, first, NAME, model="demo-model")
    asked = await _turn(demo_gateway, second, ASKED, told["id"], model="demo-model")
    assert _text(asked) == "Your name is Ada."
    assert asked["previous_response_id"] == told["id"]
    again = await _turn(demo_gateway, "plain", ASKED, asked["id"], model="demo-model")
    assert _text(again) == "Your name is Ada."


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
async def test_it_remembers_over_a_chat_backend_too(chat_gateway: Gateway, first: str, second: str) -> None:
    told = await _turn(chat_gateway, first, NAME, model="demo-model")
    asked = await _turn(chat_gateway, second, ASKED, told["id"], model="demo-model")
    assert _text(asked) == "Your name is Ada."
    assert asked["previous_response_id"] == told["id"]
    shown = await chat_gateway.call("GET", f"/responses/{asked['id']}")
    assert shown.json() == asked


@pytest.mark.parametrize("server", SERVERS)
async def test_recorded_servers_are_sent_the_turns_and_their_answers_name_the_previous_one(
    keeping: Gateway, replay_server: ReplayServer, server: str
) -> None:
    previous: dict[str, Any] | None = None
    for number, kind in enumerate(["plain", "background", "plain-stream", "background-stream", "plain"]):
        is_plain_json = kind == "plain"
        name = f"{server}/responses-sync" if is_plain_json else f"{server}/responses-stream"
        answer = replay(name)
        if number == 4:  # the same recording has the same id
            answer = json_answer({**orjson.loads(recording(name).body), "id": "resp_another"})
        replay_server.script(answer)
        previous_id = None if previous is None else previous["id"]
        response = await _turn(keeping, kind, f"Turn {number}.", previous_id)
        sent = replay_server.creates[-1].json()
        assert "previous_response_id" not in sent
        if previous is None:
            assert sent["input"] == "Turn 0."
        else:
            assert response["previous_response_id"] == previous["id"]
            roles = [item["role"] for item in sent["input"]]
            assert roles == ["user", "assistant"] * number + ["user"]
            item = previous["output"][-1]
            assert sent["input"][-2] == {name: value for name, value in item.items() if value is not None}
        previous = response


@pytest.mark.parametrize("server", SERVERS)
async def test_an_answer_that_goes_on_is_the_backends_own_but_for_that_name(
    keeping: Gateway, replay_server: ReplayServer, server: str
) -> None:
    first = await _turn(keeping, "background", NAME)
    for kind in ("plain", "plain-stream"):
        name = f"{server}/responses-{'sync' if kind == 'plain' else 'stream'}"
        own = recording(name).body
        replay_server.script(replay(name))
        answer = await keeping.call("POST", "/responses", _body(kind, ASKED, first["id"]))
        if kind == "plain":
            assert answer.json() == {**orjson.loads(own), "previous_response_id": first["id"]}
            continue
        before, after = frames(own), frames(answer.body)
        assert len(before) == len(after)
        changed = 0
        for was, now in zip(before, after, strict=True):
            if was != now:
                changed += 1
                response = {**payload(was)["response"], "previous_response_id": first["id"]}
                assert payload(now) == {**payload(was), "response": response}
        assert changed == 3


# -- what passes is not touched


@pytest.mark.parametrize(
    "name", ["responses-sync", "responses-stream", "responses-tool", "responses-tool-stream"]
)
@pytest.mark.parametrize("server", [*SERVERS, "transformers"])
async def test_a_kept_answer_is_byte_for_byte_the_backends_own(
    keeping: Gateway, replay_server: ReplayServer, server: str, name: str
) -> None:
    kind = "plain-stream" if name.endswith("stream") else "plain"
    replay_server.script(replay(f"{server}/{name}"), replay(f"{server}/{name}"))
    answer = await keeping.call("POST", "/responses", _body(kind, NAME))
    assert (
        answer.body == await _direct(replay_server, _body(kind, NAME)) == recording(f"{server}/{name}").body
    )
    assert _kept(keeping) == 1
    first, second = replay_server.creates
    assert first.body == second.body or first.json() == second.json()


async def test_nothing_is_kept_by_default(gateway: Gateway, replay_server: ReplayServer) -> None:
    for kind in ("plain", "plain-stream"):
        mine = {"Accept-Encoding": "gzip"}
        answer = await gateway.call("POST", "/responses", _body(kind, NAME), more=mine)
        assert answer.body == await _direct(replay_server, _body(kind, NAME))
        shown = await gateway.call("GET", f"/responses/{_final(answer)['id']}")
        assert shown.status == 404
    assert _kept(gateway) == 0
    assert replay_server.creates[0].header("accept-encoding") == "gzip"


@pytest.mark.parametrize("kind", ["plain", "plain-stream"])
@pytest.mark.parametrize(
    "more",
    [{"store": False}, {"conversation": "conv_1"}, {"prompt": {"id": "pmpt_1"}}, {"input": {"odd": True}}],
    ids=lambda more: next(iter(more)),
)
async def test_what_is_not_the_whole_turn_or_not_to_be_stored_is_not_kept(
    keeping: Gateway, kind: str, more: dict[str, Any]
) -> None:
    answer = await keeping.call("POST", "/responses", {**_body(kind, NAME), **more})
    assert (await keeping.call("GET", f"/responses/{_final(answer)['id']}")).status == 404
    assert _kept(keeping) == 0


def _odd_answers() -> dict[str, Answer]:
    whole = orjson.loads(recording("vllm/responses-sync").body)
    failed = {**whole, "status": "failed", "error": {"code": "server_error", "message": "no"}}
    event = {"type": "response.failed", "response": failed}
    packed = gzip.compress(orjson.dumps(whole))
    deep = orjson.dumps(whole)[:-1] + b',"x":' + b"[" * 300 + b"]" * 300 + b"}"
    return {
        "failed": json_answer(failed),
        "failed stream": Answer([b"event: response.failed\ndata: " + orjson.dumps(event) + b"\n\n"]),
        "error": replay("vllm/responses-error-bad-model"),
        "not JSON": Answer([b"<html>"], 200, {"Content-Type": "application/json"}),
        "compressed": Answer([packed], 200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}),
        "no id": json_answer({**whole, "id": None}),
        "no items": json_answer({**whole, "output": [None]}),
        "running": json_answer({**whole, "status": "queued"}),
        "too deep": Answer([deep], 200, {"Content-Type": "application/json"}),
    }


@pytest.mark.one_gateway("which API the backend has, each gateway learns for itself: another one asks again")
@pytest.mark.parametrize("name", list(_odd_answers()))
@pytest.mark.parametrize("goes_on", [False, True])
async def test_an_answer_that_is_no_ended_response_passes_as_it_is_and_is_not_kept(
    keeping: Gateway, replay_server: ReplayServer, name: str, goes_on: bool
) -> None:
    first = await _turn(keeping, "background", NAME)
    previous = first["id"] if goes_on else None
    odd = _odd_answers()[name]
    replay_server.script(odd)
    answer = await keeping.call("POST", "/responses", _body("plain", NAME, previous))
    assert answer.status == odd.status
    if not goes_on or name in ("error", "not JSON", "compressed", "too deep"):
        assert answer.body == b"".join(odd.blocks)
    assert _kept(keeping) == 0


async def test_a_kept_answer_is_asked_for_uncompressed(keeping: Gateway, replay_server: ReplayServer) -> None:
    await _turn(keeping, "plain", NAME)
    assert replay_server.creates[-1].header("accept-encoding") == "identity"


async def test_a_caller_with_two_credentials_is_neither_of_them(
    keeping: Gateway, replay_server: ReplayServer
) -> None:
    headers = {"Authorization": "Bearer a", "api-key": "b"}
    async with keeping.http.post(
        f"{keeping.url}/responses", json=_body("plain", NAME), headers=headers
    ) as answer:
        assert answer.status == 400
    assert replay_server.creates == []
    assert _kept(keeping) == 0


# -- a kept one as a response


async def test_a_kept_response_is_shown_listed_and_deleted_but_neither_streamed_nor_cancelled(
    keeping: Gateway,
) -> None:
    first = await _turn(keeping, "plain", NAME)
    kept = await _turn(keeping, "plain-stream", ASKED, first["id"])
    path = f"/responses/{kept['id']}"
    shown = await keeping.call("GET", path)
    assert (shown.status, shown.json()) == (200, kept)
    assert "openai-poll-after-ms" not in shown.headers
    streamed = await keeping.call("GET", f"{path}?stream=true")
    assert (streamed.status, streamed.error) == (
        400,
        {
            "message": "This response cannot be streamed because it was not created with background=true.",
            "type": "invalid_request_error",
            "param": "stream",
            "code": "invalid_request_error",
        },
    )
    cancelled = await keeping.call("POST", f"{path}/cancel")
    assert (cancelled.status, cancelled.error["message"]) == (400, "Cannot cancel a synchronous response.")
    items = (await keeping.call("GET", f"{path}/input_items?order=asc")).json()["data"]
    assert [item["content"][0]["text"] for item in items] == [NAME, _text(first), ASKED]
    assert len({item["id"] for item in items}) == 3
    deleted = await keeping.call("DELETE", path)
    assert deleted.json() == {"id": kept["id"], "object": "response", "deleted": True}
    assert (await keeping.call("GET", path)).status == 404
    assert (await keeping.call("GET", f"/responses/{first['id']}")).status == 200


async def test_items_that_a_backend_gave_no_id_are_listed_with_one(
    keeping: Gateway, replay_server: ReplayServer
) -> None:
    whole = orjson.loads(recording("vllm/responses-sync").body)
    del whole["output"][0]["id"]
    replay_server.script(json_answer(whole))
    first = await _turn(keeping, "plain", NAME)
    second = await _turn(keeping, "background", ASKED, first["id"])
    listed = (await keeping.call("GET", f"/responses/{second['id']}/input_items")).json()["data"]
    assert len({item["id"] for item in listed}) == 3


async def test_deleting_a_kept_response_deletes_it_at_a_backend_that_keeps_it_too(
    start_gateway: StartGateway, replay_server: ReplayServer, keeping: Gateway
) -> None:
    kept = await _turn(keeping, "plain", NAME)
    await keeping.call("DELETE", f"/responses/{kept['id']}")
    assert [(call.method, call.target) for call in replay_server.calls][-1] == (
        "DELETE",
        f"/v1/responses/{kept['id']}",
    )


async def test_another_tenant_cannot_use_it(keeping: Gateway, replay_server: ReplayServer) -> None:
    kept = await _turn(keeping, "plain", NAME)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
        answer = await keeping.call(method, f"/responses/{kept['id']}{path}", key="another")
        assert (answer.status, answer.error["message"]) == (
            404,
            f"Response with id '{kept['id']}' not found.",
        )
    refused = await keeping.call("POST", "/responses", _body("background", ASKED, kept["id"]), key="another")
    assert refused.error["code"] == "previous_response_not_found"
    body = orjson.dumps(_body("plain", ASKED, kept["id"]))
    # A gateway that does not know yet which API the backend has asks again after a 404.
    replay_server.script(*[replay("vllm/responses-previous-unknown") for _ in range(2)])
    passed = await keeping.call("POST", "/responses", body, key="another")
    assert passed.body == recording("vllm/responses-previous-unknown").body
    assert replay_server.creates[-1].body == body
    assert (await keeping.call("GET", f"/responses/{kept['id']}")).status == 200


async def test_the_same_id_twice_loses_nothing_and_shows_nothing_to_another(keeping: Gateway) -> None:
    own = recording("vllm/responses-sync").body
    answers = [
        await keeping.call("POST", "/responses", _body("plain", text), key=key)
        for text, key in (("first", "one"), ("second", "one"), ("third", "two"))
    ]
    assert [answer.body for answer in answers] == [own] * 3
    await keeping.line(event="not_recorded", reason="IdTaken")
    path = f"/responses/{answers[0].json()['id']}"
    items = await keeping.call("GET", f"{path}/input_items", key="one")
    assert [item["content"][0]["text"] for item in items.json()["data"]] == ["first"]
    for other in ("", "/input_items"):
        assert (await keeping.call("GET", f"{path}{other}", key="two")).status == 404
    assert _kept(keeping) == 1


async def test_a_kept_response_expires(start_gateway: StartGateway) -> None:
    gateway = await start_gateway("--retention-s", "1", BACKBURNER_STORE__SWEEP_INTERVAL_S="1", **RECORD)
    kept = await _turn(gateway, "plain", NAME)
    async with asyncio.timeout(WAIT_S):
        while (await gateway.call("GET", f"/responses/{kept['id']}")).status == 200:
            pass
        while not await gateway.metric("backburner_responses_swept_total"):
            pass
    assert _kept(gateway) == 0
    refused = await gateway.call("POST", "/responses", _body("background", ASKED, kept["id"]))
    assert refused.error["code"] == "previous_response_not_found"


async def test_a_kept_response_survives_a_kill(keeping: Gateway) -> None:
    kept = await _turn(keeping, "plain", NAME)
    await keeping.kill9()
    await keeping.restart()
    assert (await _turn(keeping, "background", ASKED, kept["id"]))["status"] == "completed"


# -- long conversations


async def test_the_record_is_there_before_its_client_can_go_on(demo_gateway: Gateway) -> None:
    previous: str | None = None
    for number in range(50):
        kind = "plain-stream" if number % 2 else "plain"
        text = NAME if previous is None else ASKED
        response = await _turn(demo_gateway, kind, text, previous, model="demo-model")
        assert previous is None or _text(response) == "Your name is Ada."
        previous = response["id"]


async def test_a_chain_of_sixty_turns_is_rebuilt_whole_and_stored_once(
    keeping: Gateway, replay_server: ReplayServer
) -> None:
    whole = orjson.loads(recording("vllm/responses-sync").body)
    sizes, previous = [], None
    for number in range(60):
        said = [{**whole["output"][0], "id": f"msg_{number}"}]
        replay_server.script(json_answer({**whole, "id": f"resp_turn_{number}", "output": said}))
        previous = (await _turn(keeping, "plain", f"Turn {number}.", previous))["id"]
        sizes.append(_stored_bytes(keeping))
    sent = replay_server.creates[-1].json()["input"]
    assert [item["content"] for item in sent[::2]] == [f"Turn {number}." for number in range(60)]
    assert [item["id"] for item in sent[1::2]] == [f"msg_{number}" for number in range(59)]
    steps = [after - before for before, after in pairwise(sizes[1:])]
    assert max(steps) - min(steps) < 20, steps


def _stored_bytes(gateway: Gateway) -> int:
    with closing(sqlite3.connect(gateway.database)) as file:
        [[size]] = file.execute(
            "SELECT sum(length(response) + length(request) + length(input) + length(headers) + length(final))"
            " FROM call JOIN result USING (job)"
        ).fetchall()
        return int(size)
