"""Requests as widespread clients send them, to a model server that has chat completions only.

Their shapes are those of Codex CLI 0.171, pydantic-ai 2, agent-framework, langchain and the Vercel AI SDK.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.responses import Response

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import KEY, Gateway, Reply, frames, payload
from tests.acceptance.replay import Answer, ReplayServer, json_answer, recording, replay

PATCH = "*** Begin Patch\n*** Add File: notes.txt\n+one\n*** End Patch"
CODEX_TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "name": "exec_command",
        "description": "Runs a command",
        "strict": False,
        "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]},
    },
    {
        "type": "custom",
        "name": "apply_patch",
        "description": "Edits files",
        "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin Patch" LF /.+/s'},
    },
    {
        "type": "namespace",
        "name": "multi_agent_v1",
        "description": "Other agents",
        "tools": [
            {
                "type": "function",
                "name": "spawn_agent",
                "description": "Starts one",
                "strict": False,
                "parameters": {"type": "object", "properties": {"message": {"type": "string"}}},
            }
        ],
    },
    {
        "type": "tool_search",
        "execution": "client",
        "description": "Finds tools",
        "parameters": {"type": "object"},
    },
    {"type": "web_search", "external_web_access": False},
]
CODEX: dict[str, Any] = {
    "model": "tiny",
    "store": False,
    "stream": True,
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0199-session",
    "client_metadata": {"session_id": "s-1", "x-codex-installation-id": "i-1"},
    "text": {"verbosity": "low"},
    "tools": CODEX_TOOLS,
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Read only."}]},
        {
            "type": "message",
            "role": "user",
            "id": "msg_of_the_client",
            "content": [{"type": "input_text", "text": "Write a note."}],
        },
    ],
}
OTHERS: dict[str, dict[str, Any]] = {
    "pydantic-ai": {
        "model": "gpt-5-tiny",
        "include": ["reasoning.encrypted_content"],
        "truncation": "auto",
        "text": {"format": {"type": "text"}},
        "input": [{"role": "user", "content": "Count."}],
        "tools": [CODEX_TOOLS[0], {"type": "web_search_preview", "search_context_size": "low"}],
        "tool_choice": "auto",
        "parallel_tool_calls": None,
    },
    "agent-framework": {
        "model": "tiny",
        "include": ["reasoning.encrypted_content"],
        "store": True,
        "tools": [CODEX_TOOLS[0], {"type": "code_interpreter", "container": {"type": "auto"}}],
        "tool_choice": "auto",
        "allow_multiple_tool_calls": None,
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Count."}]}],
        "prompt_cache_key": None,
        "conversation": None,
    },
    "AI SDK": {
        "model": "gpt-5-tiny",
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "reasoning": {"effort": "low", "summary": "auto"},
        "max_tool_calls": 8,
        "metadata": None,
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "Count."}]}],
    },
    "langchain": {
        "model": "tiny",
        "truncation": "auto",
        "service_tier": "auto",
        "safety_identifier": "u-1",
        "context_management": [{"type": "compaction", "compact_threshold": 9000}],
        "include": ["reasoning.encrypted_content", "message.input_image.image_url"],
        "input": [{"role": "user", "content": "Count.", "type": "message"}],
        "stream_options": None,
        "top_logprobs": None,
    },
}
CHAT_KNOWS = {
    *("model", "messages", "stream", "stream_options", "tools", "tool_choice", "parallel_tool_calls"),
    *("reasoning_effort", "verbosity", "prompt_cache_key", "service_tier", "safety_identifier", "metadata"),
}


def calls(*named: tuple[str, str]) -> Answer:
    """A chat stream with these calls."""
    deltas: list[dict[str, Any]] = [
        {
            "tool_calls": [
                {"index": n, "id": f"c{n}", "type": "function", "function": {"name": name, "arguments": text}}
            ]
        }
        for n, (name, text) in enumerate(named)
    ]
    ended: list[tuple[dict[str, Any], str | None]] = [(delta, None) for delta in deltas]
    chunks = [
        {
            "object": "chat.completion.chunk",
            "model": "tiny",
            "choices": [{"index": 0, "delta": d, "finish_reason": f}],
        }
        for d, f in [*ended, ({}, "tool_calls")]
    ]
    return Answer([b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks] + [b"data: [DONE]\n\n"])


@pytest.fixture
async def chat(start_gateway: StartGateway) -> Gateway:
    return await start_gateway("--api", "chat")


async def asked(gateway: Gateway, body: dict[str, Any]) -> tuple[Reply, dict[str, Any]]:
    """The answer to a create, and the Response that it comes to."""
    answer = await gateway.call("POST", "/responses", body)
    assert answer.status == 200, answer.body
    final = payload(frames(answer.body)[-1])["response"] if body.get("stream") else answer.json()
    return answer, await gateway.ended(final["id"]) if body.get("background") else final


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_codex_is_served_and_told_what_was_left_out(
    chat: Gateway, replay_server: ReplayServer, stream: bool, background: bool
) -> None:
    replay_server.script(
        calls(
            ("multi_agent_v1__spawn_agent", '{"message": "go"}'),
            ("apply_patch", orjson.dumps({"input": PATCH}).decode()),
            ("exec_command", '{"cmd": "ls"}'),
        )
    )
    body = {**CODEX, "stream": stream, "background": background, "store": background}
    answer, final = await asked(chat, body)
    assert final["status"] == "completed", final
    Response.model_validate(final)
    assert [(i["type"], i["name"], i.get("namespace")) for i in final["output"]] == [
        ("function_call", "spawn_agent", "multi_agent_v1"),
        ("custom_tool_call", "apply_patch", None),
        ("function_call", "exec_command", None),
    ]
    assert final["output"][1]["input"] == PATCH
    sent = replay_server.creates[-1].json()
    assert sent.keys() <= CHAT_KNOWS
    names = [tool["function"]["name"] for tool in sent["tools"]]
    assert names == ["exec_command", "apply_patch", "multi_agent_v1__spawn_agent"]
    assert "*** Begin Patch" in sent["tools"][1]["function"]["description"]
    # What was left out.
    assert answer.headers["x-backburner-omitted-tools"] == "tool_search, web_search"
    assert [tool["type"] for tool in final["tools"]] == ["function", "custom", "namespace"]
    line = await chat.line(event="tools_omitted")
    assert (line["backend"], line["tools"]) == ("default", "tool_search web_search")
    counted = 'backburner_omitted_tools_total{backend="default",tool="%s"}'
    assert await chat.metric(counted % "web_search") == 1
    assert await chat.metric(counted % "tool_search") == 1


async def test_tools_may_come_in_an_item_and_none_in_the_list(
    chat: Gateway, replay_server: ReplayServer
) -> None:
    replay_server.script(calls(("multi_agent_v1__spawn_agent", "{}")))
    brought = {"type": "additional_tools", "role": "developer", "tools": CODEX_TOOLS}
    body: dict[str, Any] = {**CODEX, "input": [brought, *CODEX["input"]], "background": True, "store": True}
    del body["tools"]
    answer, final = await asked(chat, body)
    (item,) = final["output"]
    assert (item["name"], item["namespace"], final["tools"]) == ("spawn_agent", "multi_agent_v1", [])
    assert answer.headers["x-backburner-omitted-tools"] == "tool_search, web_search"
    assert [message["role"] for message in replay_server.creates[-1].json()["messages"]] == ["system", "user"]


async def test_tools_of_an_item_that_is_only_named_are_told_of_at_each_repeat_of_the_create(
    chat: Gateway,
) -> None:
    brought = {"type": "additional_tools", "role": "developer", "tools": CODEX_TOOLS}
    body = {name: value for name, value in CODEX.items() if name != "tools"}
    body |= {"stream": False, "background": True, "store": True}
    _, first = await asked(chat, {**body, "input": [brought, *CODEX["input"]]})
    page = await chat.call("GET", f"/responses/{first['id']}/input_items?order=asc")
    reference = {"type": "item_reference", "id": page.json()["data"][0]["id"]}
    body["input"] = [reference, *CODEX["input"]]
    more = {"Idempotency-Key": "named"}
    answers = [await chat.call("POST", "/responses", body, more=more) for _ in range(2)]
    assert len({answer.json()["id"] for answer in answers}) == 1
    told = [answer.headers["x-backburner-omitted-tools"] for answer in answers]
    assert told == ["tool_search, web_search"] * 2


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("name", OTHERS)
async def test_other_clients_are_served(
    chat: Gateway, replay_server: ReplayServer, name: str, background: bool
) -> None:
    body = {**OTHERS[name], **({"background": True, "store": True} if background else {})}
    _, final = await asked(chat, body)
    assert (final["status"], final["error"]) == ("completed", None)
    Response.model_validate(final)
    assert replay_server.creates[-1].json().keys() <= CHAT_KNOWS


async def test_an_answer_from_which_nothing_was_left_out_says_nothing(chat: Gateway) -> None:
    answer, final = await asked(chat, {"model": "tiny", "input": "Count.", "tools": CODEX_TOOLS[:3]})
    assert "x-backburner-omitted-tools" not in answer.headers
    assert len(final["tools"]) == 3


@pytest.mark.parametrize("background", [False, True])
async def test_a_tool_that_is_demanded_is_not_left_out(
    chat: Gateway, replay_server: ReplayServer, background: bool
) -> None:
    body = {"model": "tiny", "input": "Search.", "background": background, "tools": CODEX_TOOLS}
    for choice in ({"type": "web_search"}, {"type": "mcp", "server_label": "s"}):
        refused = await chat.call("POST", "/responses", {**body, "tool_choice": choice})
        assert (refused.status, refused.error["param"]) == (400, "tool_choice")
        assert refused.error["code"] == "unsupported_parameter"
    assert replay_server.creates == []
    assert await chat.metric('backburner_omitted_tools_total{backend="default",tool="web_search"}') == 0


@pytest.mark.parametrize("background", [False, True])
async def test_the_settings_may_refuse_what_they_would_leave_out(
    start_gateway: StartGateway, replay_server: ReplayServer, background: bool
) -> None:
    strict = await start_gateway("--api", "chat", BACKBURNER_UPSTREAM__UNSUPPORTED_TOOLS="refuse")
    body = {"model": "tiny", "input": "Search.", "background": background}
    refused = await strict.call("POST", "/responses", {**body, "tools": CODEX_TOOLS})
    assert (refused.status, refused.error["param"]) == (400, "tools.3")
    assert "unsupported_tools" in refused.error["message"]
    assert replay_server.creates == []
    assert await strict.metric('backburner_omitted_tools_total{backend="default",tool="tool_search"}') == 0
    _, final = await asked(strict, {**body, "tools": CODEX_TOOLS[:3]})
    assert final["status"] == "completed"


async def test_what_is_left_out_is_known_at_the_first_request_to_a_server_that_was_never_asked(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    replay_server.answer_to_question = "llamacpp-python/responses-sync"
    assert recording(replay_server.answer_to_question).status == 404
    gateway = await start_gateway()
    answer, final = await asked(gateway, {**CODEX, "stream": False, "background": True, "store": True})
    assert answer.headers["x-backburner-omitted-tools"] == "tool_search, web_search"
    kinds = [tool["type"] for tool in answer.json()["tools"]]
    assert kinds == [tool["type"] for tool in final["tools"]] == ["function", "custom", "namespace"]


async def test_what_is_left_out_is_said_at_the_end_if_it_was_not_known_before(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    """The server was down when the request came."""
    replay_server.answer_to_question = "llamacpp-python/responses-sync"
    port = int(replay_server.url.rsplit(":", 1)[1].removesuffix("/v1"))
    await replay_server.stop()
    gateway = await start_gateway(BACKBURNER_TENANTS__MODE="none", BACKBURNER_TENANTS__ALLOW_ANYONE="true")
    answer = await gateway.call(
        "POST", "/responses", {**CODEX, "stream": False, "background": True, "store": True}
    )
    assert (answer.status, "x-backburner-omitted-tools" in answer.headers) == (200, False)
    server = ReplayServer()
    server.answer_to_question = "llamacpp-python/responses-sync"
    await server.start(port)
    try:
        final = await gateway.ended(answer.json()["id"])
    finally:
        await server.stop()
    assert final["status"] == "completed"
    assert [tool["type"] for tool in final["tools"]] == ["function", "custom", "namespace"]
    assert (await gateway.line(event="tools_omitted"))["tools"] == "tool_search web_search"


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_a_field_that_the_settings_drop_is_not_judged(
    start_gateway: StartGateway, replay_server: ReplayServer, api: str
) -> None:
    gateway = await start_gateway(
        "--api", api, BACKBURNER_UPSTREAM__DROP_FIELDS="include,tool_choice,conversation"
    )
    odd = {"include": ["of.another.year"], "tool_choice": "sometimes", "conversation": "conv_unknown"}
    for background in (True, False) if api == "chat" else (True,):
        _, final = await asked(gateway, {"model": "tiny", "input": "Count.", "background": background, **odd})
        assert final["status"] == "completed"
        assert final["tool_choice"] == "auto"
        assert not odd.keys() & replay_server.creates[-1].json().keys()


# -- requests that no backend can take, or that name nothing


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_a_response_without_a_model_shows_the_one_that_the_backend_reports(
    start_gateway: StartGateway, replay_server: ReplayServer, api: str
) -> None:
    gateway = await start_gateway("--api", api)
    for body in ({"input": "Count."}, {"input": "Count.", "model": None}):
        answer, final = await asked(gateway, {**body, "background": True})
        assert answer.json()["model"] is None
        assert (final["status"], final["model"]) == ("completed", "tiny")
        assert "model" not in replay_server.creates[-1].json()


@pytest.mark.parametrize("api", ["auto", "responses", "chat"])
@pytest.mark.parametrize("background", ["true", 1, 0, [], {}, ""])
async def test_background_of_another_type_never_runs(
    start_gateway: StartGateway, replay_server: ReplayServer, api: str, background: Any
) -> None:
    gateway = await start_gateway("--api", api)
    body = {"model": "tiny", "input": "Count.", "background": background}
    refused = await gateway.call("POST", "/responses", body)
    assert (refused.status, refused.error["param"], refused.error["code"]) == (
        400,
        "background",
        "invalid_type",
    )
    assert replay_server.calls == []


CONVERSATION = {"id": "conv_1", "object": "conversation", "created_at": 1, "metadata": {}}


@pytest.mark.parametrize("named", ["conv_1", {"id": "conv_1"}])
async def test_a_conversation_that_the_backend_does_not_know_is_not_run_without_it(
    gateway: Gateway, replay_server: ReplayServer, named: Any
) -> None:
    body = {"model": "tiny", "input": "Go on.", "background": True, "conversation": named}
    refused = await gateway.call("POST", "/responses", body)
    assert (refused.status, refused.error["code"]) == (404, "conversation_not_found")
    assert "conv_1" in refused.error["message"]
    assert [call.target for call in replay_server.calls if "conversations" in call.target] == [
        "/v1/conversations/conv_1"
    ]
    assert replay_server.creates == []


async def test_a_conversation_that_the_backend_knows_for_this_caller_is_gone_on_with(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    replay_server.known["/v1/conversations/conv_1"] = json_answer(CONVERSATION)
    body = {"model": "tiny", "input": "Go on.", "background": True, "conversation": "conv_1"}
    _, final = await asked(gateway, body)
    assert (final["status"], final["conversation"]) == ("completed", {"id": "conv_1"})
    assert replay_server.creates[-1].json()["conversation"] == "conv_1"
    (question,) = [call for call in replay_server.calls if "conversations" in call.target]
    assert question.header("authorization") == f"Bearer {KEY}"


@pytest.mark.parametrize("named", ["../models", "a b", "x" * 300])
async def test_what_cannot_be_a_conversation_is_not_asked_for(
    gateway: Gateway, replay_server: ReplayServer, named: str
) -> None:
    body = {"model": "tiny", "input": "Go on.", "background": True, "conversation": named}
    assert (await gateway.call("POST", "/responses", body)).status == 404
    assert not [call for call in replay_server.calls if "conversations" in call.target]


async def test_a_conversation_cannot_be_gone_on_with_where_nobody_can_say_whose_it_is(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    shared = await start_gateway("--api", "responses", BACKBURNER_UPSTREAM__API_KEY="sk-of-the-gateway")
    chat = await start_gateway("--api", "chat")
    body = {"model": "tiny", "input": "Go on.", "background": True, "conversation": "conv_1"}
    for gateway in (shared, chat):
        refused = await gateway.call("POST", "/responses", body)
        assert (refused.status, refused.error["param"]) == (400, "conversation")
        assert refused.error["code"] == "unsupported_parameter"
    assert not [call for call in replay_server.calls if "conversations" in call.target]


async def test_a_conversation_cannot_be_gone_on_with_while_the_backend_is_down(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--api", "responses")
    await replay_server.stop()
    body = {"model": "tiny", "input": "Go on.", "background": True, "conversation": "conv_1"}
    refused = await gateway.call("POST", "/responses", body)
    assert (refused.status, refused.error["code"]) == (503, "backend_unavailable")
    assert "retry-after" in refused.headers


async def test_a_replay_of_the_same_create_says_again_what_was_left_out(
    chat: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/chat-stream", hold_after=2))
    body = {"model": "tiny", "input": "Count.", "background": True, "tools": [{"type": "web_search"}]}
    key = {"Idempotency-Key": "once"}
    first = await chat.call("POST", "/responses", body, more=key)
    again = await chat.call("POST", "/responses", body, more=key)
    assert first.json()["id"] == again.json()["id"]
    for answer in (first, again):
        assert answer.headers["x-backburner-omitted-tools"] == "web_search"
        assert answer.json()["tools"] == []
    assert await chat.metric('backburner_omitted_tools_total{backend="default",tool="web_search"}') == 1
    held.release.set()
    await chat.ended(first.json()["id"])
