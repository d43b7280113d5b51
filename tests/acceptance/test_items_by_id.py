"""What is stored can be named, what says that it is stored is there, and thoughts come back sealed."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import KEY, Gateway, Reply, frames, payload
from tests.acceptance.replay import Answer, ReplayServer, json_answer, recording, replay

KINDS = ["background", "plain", "plain-stream"]
TOOL: dict[str, Any] = {
    "type": "function",
    "name": "sky",
    "parameters": {"type": "object", "properties": {}},
}
USER = {"role": "user", "content": "Is it wet in Oslo?"}
OUTPUT = {"type": "function_call_output", "call_id": "call_sky", "output": "wet"}
SEALED = {"include": ["reasoning.encrypted_content"]}


@pytest.fixture
async def chat(start_gateway: StartGateway) -> Gateway:
    return await start_gateway("--api", "chat")


@pytest.fixture
async def responses(start_gateway: StartGateway) -> Gateway:
    return await start_gateway("--api", "responses")


def chunks(*deltas: dict[str, Any], finish: str = "stop") -> Answer:
    """A chat stream."""
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    blocks = [b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\n" for choice in choices]
    return Answer([*blocks, b"data: [DONE]\n\n"])


def thoughtful_call() -> Answer:
    """A thought, and a call."""
    function = {"name": "sky", "arguments": "{}"}
    call = {"index": 0, "id": "call_sky", "type": "function", "function": function}
    return chunks({"reasoning_content": "I must look."}, {"tool_calls": [call]}, finish="tool_calls")


def body(kind: str, given: Any, **more: Any) -> dict[str, Any]:
    made = {"model": "tiny", "input": given, "stream": kind.endswith("stream"), "tools": [TOOL], **more}
    return {**made, "background": True} if kind == "background" else made


def final(answer: Reply) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    if answer.headers["content-type"].startswith("text/event-stream"):
        streamed: dict[str, Any] = payload(frames(answer.body)[-1])["response"]
        return streamed
    whole: dict[str, Any] = answer.json()
    return whole


async def turn(gateway: Gateway, kind: str, given: Any, **more: Any) -> dict[str, Any]:
    made = final(await gateway.call("POST", "/responses", body(kind, given, **more)))
    return await gateway.ended(made["id"]) if kind == "background" else made


def named(item: dict[str, Any], *, is_typed: bool = True) -> dict[str, Any]:
    return {"type": "item_reference", "id": item["id"]} if is_typed else {"id": item["id"]}


# -- references, over a backend that speaks chat completions


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
async def test_a_tool_round_goes_on_from_items_that_are_only_named(
    chat: Gateway, replay_server: ReplayServer, first: str, second: str
) -> None:
    replay_server.script(thoughtful_call(), chunks({"content": "Yes."}))
    one = await turn(chat, first, [USER])
    thought, call = one["output"]
    told = [USER, named(thought), named(call, is_typed=False), OUTPUT]
    two = await turn(chat, second, told)
    assert two["output"][0]["content"][0]["text"] == "Yes."
    _, asked, output = replay_server.creates[-1].json()["messages"]
    assert asked["tool_calls"][0]["id"] == output["tool_call_id"] == "call_sky"
    items = (await chat.call("GET", f"/responses/{two['id']}/input_items?order=asc")).json()["data"]
    assert items[1:3] == [thought, call]


async def test_input_items_can_be_named_by_the_ids_that_they_are_listed_with(
    chat: Gateway, replay_server: ReplayServer
) -> None:
    replay_server.script(*(chunks({"content": f"{number}."}) for number in range(4)))
    one = await turn(chat, "plain", "My name is Ada.")
    own = {"type": "message", "id": "msg_own", "role": "user", "content": "I like otters."}
    two = await turn(chat, "background", [own], previous_response_id=one["id"])
    listed = (await chat.call("GET", f"/responses/{two['id']}/input_items?order=asc")).json()["data"]
    assert [item["role"] for item in listed] == ["user", "assistant", "user"]
    for kind in ("plain", "background"):
        await turn(chat, kind, [*map(named, listed), {"role": "user", "content": "Who am I?"}])
        sent = replay_server.creates[-1].json()["messages"]
        texts = ["My name is Ada.", "0.", "I like otters.", "Who am I?"]
        assert [message["content"] for message in sent] == texts


@pytest.mark.parametrize("kind", KINDS)
async def test_an_item_that_is_not_there_is_told_at_once_and_the_backend_is_not_asked(
    chat: Gateway, replay_server: ReplayServer, kind: str
) -> None:
    replay_server.script(chunks({"content": "Hello."}))
    one = await turn(chat, "plain", "Hi")
    [message] = one["output"]
    asked = len(replay_server.creates)
    for missing, key in (("msg_0f3a", KEY), (message["id"], "another")):
        given = [{"type": "item_reference", "id": missing}, USER]
        refused = await chat.call("POST", "/responses", body(kind, given), key=key)
        assert refused.status == 404
        assert refused.error == {
            "message": f"Item with id '{missing}' not found. Items are not persisted when `store` is set to "
            "false. Try again with `store` set to true, or remove this item from your input.",
            "type": "invalid_request_error",
            "param": "input",
            "code": None,
        }
    assert len(replay_server.creates) == asked


async def test_items_can_be_named_across_a_kill(chat: Gateway, replay_server: ReplayServer) -> None:
    replay_server.script(thoughtful_call(), chunks({"content": "Yes."}))
    one = await turn(chat, "plain", [USER])
    await chat.kill9()
    await chat.restart()
    two = await turn(chat, "plain", [USER, *map(named, one["output"]), OUTPUT])
    assert two["status"] == "completed"


async def test_an_item_outlives_its_response_in_the_later_ones_that_named_it(
    chat: Gateway, replay_server: ReplayServer
) -> None:
    replay_server.script(thoughtful_call(), *(chunks({"content": "Yes."}) for _ in range(2)))
    one = await turn(chat, "plain", [USER])
    told = [USER, *map(named, one["output"]), OUTPUT]
    two = await turn(chat, "background", told)
    assert (await chat.call("DELETE", f"/responses/{one['id']}")).status == 200
    three = await turn(chat, "plain", [*told, named(two["output"][0]), {"role": "user", "content": "Sure?"}])
    assert three["status"] == "completed"
    roles = [message["role"] for message in replay_server.creates[-1].json()["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]


# -- references, over a backend that speaks the Responses API


@pytest.mark.parametrize("kind", KINDS)
async def test_a_backend_that_keeps_nothing_is_told_the_items_themselves(
    responses: Gateway, replay_server: ReplayServer, kind: str
) -> None:
    replay_server.script(replay("vllm/responses-tool-stream"))
    one = await turn(responses, "background", [USER])
    [call] = [item for item in one["output"] if item["type"] == "function_call"]
    replay_server.script(replay(f"vllm/responses-{'sync' if kind == 'plain' else 'stream'}"))
    output = {**OUTPUT, "call_id": call["call_id"]}
    await turn(responses, kind, [USER, named(call), output])
    assert replay_server.creates[-1].json()["input"] == [USER, call, output]


async def test_of_a_backend_that_counts_its_items_from_one_the_newest_is_meant(
    responses: Gateway, replay_server: ReplayServer
) -> None:
    whole = orjson.loads(recording("vllm/responses-sync").body)
    said = whole["output"][-1]
    for number in ("first", "second"):
        part = {**said["content"][0], "text": number}
        item = {**said, "id": "msg_1", "content": [part]}
        replay_server.script(json_answer({**whole, "output": [item]}))
        await turn(responses, "background", "Hi")
    replay_server.script(replay("vllm/responses-stream"))
    await turn(responses, "background", [{"id": "msg_1"}, USER])
    [meant, _] = replay_server.creates[-1].json()["input"]
    assert meant["content"][0]["text"] == "second"


async def test_an_id_that_may_be_the_backends_own_goes_on_as_it_came(
    responses: Gateway, replay_server: ReplayServer
) -> None:
    given = [{"type": "item_reference", "id": "msg_its_own"}, USER]
    raw = orjson.dumps(body("plain", given), option=orjson.OPT_INDENT_2)
    replay_server.script(replay("vllm/responses-sync"))
    assert (await responses.call("POST", "/responses", raw)).status == 200
    assert replay_server.creates[-1].body == raw
    replay_server.script(replay("vllm/responses-stream"))
    await turn(responses, "background", given)
    assert replay_server.creates[-1].json()["input"] == given


async def test_through_a_key_of_the_gateways_nobody_names_what_is_not_its_own(
    start_gateway: StartGateway, replay_server: ReplayServer, tmp_path: Any
) -> None:
    key = tmp_path / "key"
    key.write_text("gateways-own")
    key.chmod(0o600)
    gateway = await start_gateway("--api", "responses", "--api-key-file", str(key))
    unknown = b'{"id": "msg_of_anybody"}'
    odd = [
        b'{"model": "m", "input": [%b]}' % unknown,
        b'{"model": "m", "input": [{"type": "item_reference", "id": "msg_of_anybody"}]}',
        rb'{"model": "m", "input": [{"\u0069d": "msg_of_anybody"}]}',
        b'\xef\xbb\xbf{"model": "m", "input": [%b]}' % unknown,
    ]
    for raw in odd:
        refused = await gateway.call("POST", "/responses", raw)
        assert refused.status in (400, 404), raw
        assert refused.error["type"] == "invalid_request_error"
    assert (await gateway.call("POST", "/responses", body("background", [{"id": "msg_x"}]))).status == 404
    assert replay_server.creates == []
    # Of an input given twice, the backend is told what was read here.
    replay_server.script(replay("vllm/responses-sync"))
    twice = b'{"model": "m", "input": [%b], "input": [{"role": "user", "content": "Hi"}]}' % unknown
    assert (await gateway.call("POST", "/responses", twice)).status == 200
    assert replay_server.creates[-1].json() == {"model": "m", "input": [{"role": "user", "content": "Hi"}]}
    assert b"anybody" not in replay_server.creates[-1].body


async def test_items_of_passed_answers_can_be_named_where_these_are_recorded(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--api", "responses", BACKBURNER_CONVERSATIONS__RECORD_FOREGROUND="true")
    replay_server.script(replay("vllm/responses-sync"), replay("vllm/responses-stream"))
    one = await turn(gateway, "plain", [USER])
    [item] = (await gateway.call("GET", f"/responses/{one['id']}/input_items")).json()["data"]
    await turn(gateway, "plain-stream", [named(item), *map(named, one["output"]), OUTPUT])
    assert replay_server.creates[-1].json()["input"] == [{**USER, "id": item["id"]}, *one["output"], OUTPUT]


# -- what says that it is stored


@pytest.mark.parametrize("kind", ["plain", "plain-stream"])
async def test_a_plain_response_that_says_it_is_stored_is_there(
    chat: Gateway, replay_server: ReplayServer, kind: str
) -> None:
    replay_server.script(chunks({"content": "Hello."}))
    answer = await chat.call("POST", "/responses", body(kind, "Hi"))
    made = final(answer)
    if kind == "plain-stream":
        assert payload(frames(answer.body)[0])["response"]["store"] is True
    assert made["store"] is True
    assert (await chat.call("GET", f"/responses/{made['id']}")).json() == made


@pytest.mark.parametrize("kind", ["plain", "plain-stream"])
@pytest.mark.parametrize("why", ["the client", "the settings"])
async def test_a_plain_response_that_is_not_stored_says_so_from_the_start(
    start_gateway: StartGateway, replay_server: ReplayServer, kind: str, why: str
) -> None:
    setting = "auto" if why == "the client" else "false"
    gateway = await start_gateway("--api", "chat", BACKBURNER_CONVERSATIONS__RECORD_FOREGROUND=setting)
    more = {"store": False} if why == "the client" else {}
    replay_server.script(chunks({"content": "Hello."}))
    answer = await gateway.call("POST", "/responses", body(kind, "Hi", **more))
    made = final(answer)
    if kind == "plain-stream":
        embedded = [payload(frame).get("response") for frame in frames(answer.body)]
        assert [response["store"] for response in embedded if response] == [False] * 3
    assert made["store"] is False
    assert (await gateway.call("GET", f"/responses/{made['id']}")).status == 404
    refused = await gateway.call("POST", "/responses", body(kind, "Hi", previous_response_id=made["id"]))
    assert refused.error["code"] == "previous_response_not_found"


@pytest.mark.parametrize("kind", ["plain", "plain-stream"])
async def test_a_plain_response_that_turns_out_not_to_be_stored_says_so_at_its_end(
    start_gateway: StartGateway, replay_server: ReplayServer, kind: str
) -> None:
    small = {
        "BACKBURNER_STORE__DATABASE_BYTES_MAX": 2**20,
        "BACKBURNER_STORE__BALLAST_BYTES": 0,
        "BACKBURNER_BACKGROUND__BODY_BYTES_MAX": 2**19,
        "BACKBURNER_BACKGROUND__EVENT_BYTES_MAX": 2**18,
        "BACKBURNER_BACKGROUND__EVENTS_BYTES_MAX": 2**19,
    }
    gateway = await start_gateway("--api", "chat", **small)
    replay_server.script(chunks({"content": "Hello."}))
    made = final(await gateway.call("POST", "/responses", body(kind, "x" * 900_000)))
    assert (made["status"], made["store"]) == ("completed", False)
    assert made["output"][0]["content"][0]["text"] == "Hello."
    assert (await gateway.call("GET", f"/responses/{made['id']}")).status == 404
    await gateway.line(event="not_recorded", id=made["id"])


async def test_a_plain_stream_that_fails_is_not_stored_and_says_so(
    chat: Gateway, replay_server: ReplayServer
) -> None:
    whole = chunks({"content": "Hel"})
    replay_server.script(Answer(whole.blocks[:1]))
    answer = await chat.call("POST", "/responses", body("plain-stream", "Hi"))
    made = final(answer)
    assert (made["status"], made["store"]) == ("failed", False)
    assert (await chat.call("GET", f"/responses/{made['id']}")).status == 404


# -- thoughts


@pytest.mark.parametrize("kind", KINDS)
async def test_thoughts_of_a_chat_backend_come_back_sealed(
    start_gateway: StartGateway, replay_server: ReplayServer, tmp_path: Any, kind: str
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(
        f"upstream: {{url: {replay_server.url}, api: chat, reasoning_field: reasoning_content}}\n"
    )
    gateway = await start_gateway("--config", str(file), upstream="")
    replay_server.script(thoughtful_call(), chunks({"content": "Yes."}))
    one = await turn(gateway, kind, [USER], **SEALED, **({} if kind == "background" else {"store": False}))
    thought, call = one["output"]
    assert thought["content"][0]["text"] == "I must look."
    bare = {"type": "reasoning", "id": thought["id"], "summary": []}
    back = {**bare, "encrypted_content": thought["encrypted_content"]}
    await gateway.kill9()
    await gateway.restart()
    two = await turn(gateway, kind, [USER, back, call, OUTPUT], **SEALED)
    assert two["status"] == "completed"
    assert replay_server.creates[-1].json()["messages"][1]["reasoning_content"] == "I must look."
    asked = len(replay_server.creates)
    for text, key in ((back["encrypted_content"][:-3] + "AAA", KEY), (back["encrypted_content"], "x")):
        changed = {**back, "encrypted_content": text}
        refused = await gateway.call("POST", "/responses", body(kind, [USER, changed, call, OUTPUT]), key=key)
        assert (refused.status, refused.error["code"]) == (400, "invalid_encrypted_content")
        assert refused.error["param"] == "input.1.encrypted_content"
    assert len(replay_server.creates) == asked


async def test_a_replay_shows_the_seal_that_the_first_reader_saw(
    chat: Gateway, replay_server: ReplayServer
) -> None:
    replay_server.script(thoughtful_call())
    answer = await chat.call("POST", "/responses", {**body("background", [USER], **SEALED), "stream": True})
    made = final(answer)
    assert made["output"][0]["encrypted_content"]
    [done] = [
        event["item"]
        for event in map(payload, frames(answer.body))
        if event["type"] == "response.output_item.done" and event["item"]["type"] == "reasoning"
    ]
    assert done == made["output"][0]
    assert b"".join(frames(await chat.replay(made["id"]))) == b"".join(frames(answer.body))


async def test_a_responses_backend_is_not_given_a_seal_that_it_cannot_open(
    start_gateway: StartGateway, replay_server: ReplayServer, tmp_path: Any
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "backends:\n"
        f"  talk: {{url: {replay_server.url}, api: chat, models: [talk]}}\n"
        f"  other: {{url: {replay_server.url}, api: responses, models: ['*']}}\n"
        "default_backend: other\n"
    )
    gateway = await start_gateway("--config", str(file), upstream="")
    replay_server.script(thoughtful_call(), replay("vllm/responses-sync"))
    one = await turn(gateway, "plain", [USER], **SEALED, model="talk")
    thought = one["output"][0]
    back = {name: value for name, value in thought.items() if name != "content"}
    await turn(gateway, "plain", [USER, back])
    sent = replay_server.creates[-1].json()["input"][1]
    assert sent["content"] == thought["content"]
    assert "encrypted_content" not in sent


# -- ids of the gateway's own making


ROUTES = [("GET", ""), ("GET", "/input_items"), ("POST", "/cancel"), ("DELETE", "")]


@pytest.mark.parametrize("kind", ["background", "background-stream"])
async def test_a_backend_is_never_asked_for_a_response_that_was_made_here(
    responses: Gateway, replay_server: ReplayServer, kind: str
) -> None:
    one = await turn(responses, "background", "Hi", stream=False)
    assert (await responses.call("DELETE", f"/responses/{one['id']}")).status == 200
    before = len(replay_server.calls)
    for method, path in ROUTES:
        answer = await responses.call(method, f"/responses/{one['id']}{path}")
        assert (answer.status, answer.error["message"]) == (404, f"Response with id '{one['id']}' not found.")
    for plain in ("plain", "plain-stream", "background"):
        refused = await responses.call(
            "POST", "/responses", body(plain, "Hi", previous_response_id=one["id"])
        )
        assert (refused.status, refused.error["code"]) == (400, "previous_response_not_found")
    assert len(replay_server.calls) == before


@pytest.mark.parametrize("length", [32, 48, 50])
async def test_a_backend_is_asked_for_ids_of_any_shape_but_our_own(
    responses: Gateway, replay_server: ReplayServer, length: int
) -> None:
    await turn(responses, "background", "Hi")
    before = len(replay_server.calls)
    target = f"/responses/resp_{'5' * length}"
    answer = await responses.call("GET", target)
    asked = [call.target for call in replay_server.calls[before:]]
    assert asked == ([] if length == 48 else [f"/v1{target}"])
    assert answer.status == 404


async def test_deleting_a_recorded_plain_response_asks_no_chat_backend(
    chat: Gateway, replay_server: ReplayServer
) -> None:
    replay_server.script(chunks({"content": "Hello."}))
    made = await turn(chat, "plain", "Hi")
    before = len(replay_server.calls)
    assert (await chat.call("DELETE", f"/responses/{made['id']}")).json()["deleted"] is True
    assert (await chat.call("GET", f"/responses/{made['id']}")).status == 404
    assert len(replay_server.calls) == before
