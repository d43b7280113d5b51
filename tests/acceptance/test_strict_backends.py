"""Model servers that refuse conversations that others take: the gateway says it again as they want it.

The words are those of public reports, the servers are made up after them. Each refusal costs one call, once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, Reply, frames, payload
from tests.acceptance.replay import Answer
from tests.acceptance.strict import (
    SEAL,
    Body,
    Item,
    Judge,
    StrictServer,
    answered,
    calling,
    chunks,
    events,
    refusal,
    said,
)

TOOLS = [{"type": "function", "name": "sky", "parameters": {"type": "object", "properties": {}}}]
KINDS = ["background", "plain", "plain-stream"]
StartServer = Callable[..., Awaitable[StrictServer]]


@pytest.fixture
async def start_server() -> AsyncIterator[StartServer]:
    """Starts strict servers, each with its judge and what it answers."""
    started: list[StrictServer] = []

    async def start(judge: Judge, answer: Callable[[Body], Answer] | None = None) -> StrictServer:
        server = StrictServer(judge, answer)
        started.append(server)
        await server.start()
        return server

    yield start
    for server in started:
        await server.stop()


async def turn(gateway: Gateway, kind: str = "background", **body: Any) -> Body:
    """One response, at its end."""
    request = {"model": "m", **body}
    if kind == "background":
        made = await gateway.call("POST", "/responses", {**request, "background": True})
        assert made.status == 200, made.body
        return await gateway.ended(made.json()["id"])
    reply = await gateway.call("POST", "/responses", {**request, "stream": kind == "plain-stream"})
    assert reply.status == 200, reply.body
    return _final(reply)


def _final(reply: Reply) -> Body:
    if reply.headers["content-type"].startswith("text/event-stream"):
        found: Body = payload(frames(reply.body)[-1])["response"]
    else:
        found = reply.json()
    return found


def text(response: Body) -> str:
    assert response["status"] == "completed", response["error"]
    return "".join(part["text"] for item in response["output"] for part in item.get("content") or [])


def outputs(response: Body, output: Any = "wet") -> list[Item]:
    """The outputs of its calls."""
    calls = [item for item in response["output"] if item["type"] == "function_call"]
    return [{"type": "function_call_output", "call_id": call["call_id"], "output": output} for call in calls]


# -- chat completions


def _wants_system_first(body: Body) -> str | None:
    roles = [message["role"] for message in body["messages"]]
    return "System message must be at the beginning." if "system" in roles[1:] else None


def _says_so_as_llama_cpp(body: Body) -> Answer | None:
    wrong = _wants_system_first(body)
    return refusal(f"Jinja Exception: {wrong}", 500) if wrong else None


def _says_so_within_a_stream(body: Body) -> Answer | None:
    wrong = _wants_system_first(body)
    return events({"error": {"message": wrong, "code": 400}}) if wrong else None


RESUMED: list[Item] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "developer", "content": "The sandbox is writable now."},
    {"role": "user", "content": "Go on"},
]


@pytest.mark.parametrize("judge", [_wants_system_first, _says_so_as_llama_cpp, _says_so_within_a_stream])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_late_developer_message_is_said_at_the_front_once_it_was_refused(
    start_gateway: StartGateway, start_server: StartServer, kind: str, judge: Judge
) -> None:
    server = await start_server(judge)
    gateway = await start_gateway("--api", "chat", upstream=server.url)
    for _ in range(2):
        assert text(await turn(gateway, kind, instructions="You code.", input=RESUMED)) == "Yes."
        assert [message["role"] for message in server.last["messages"]] == [
            *("system", "user", "assistant", "user")
        ]
        assert server.last["messages"][0]["content"].endswith("The sandbox is writable now.")
    assert server.refused == 1
    assert len(server.creates) == 3
    keys = [call.header("idempotency-key") for call in server.creates]
    assert len(set(keys)) == 3
    assert (await gateway.line(event="lesson"))["reason"] == "system_first"
    assert await gateway.metric('backburner_lessons_total{backend="default",lesson="system_first"}') == 1


async def test_by_the_setting_they_are_said_there_at_once_or_never(
    start_gateway: StartGateway, start_server: StartServer
) -> None:
    server = await start_server(_wants_system_first)
    setting = "BACKBURNER_UPSTREAM__SYSTEM_MESSAGES"
    first = await start_gateway("--api", "chat", upstream=server.url, **{setting: "first"})
    assert text(await turn(first, input=RESUMED)) == "Yes."
    assert server.refused == 0
    in_place = await start_gateway("--api", "chat", upstream=server.url, **{setting: "in_place"})
    assert (await turn(in_place, input=RESUMED))["status"] == "failed"
    assert server.refused == 1


def _as_mistral(body: Body) -> str | None:
    """Turns alternate, a tool's outputs are as many as its calls, and an assistant follows them."""
    waiting: set[str] = set()
    before = None
    for message in body["messages"]:
        role = message["role"]
        if role == "system" and before is not None:
            return f"Unexpected role 'system' after role '{before}'"
        if waiting and role != "tool":
            return "Not the same number of function calls and responses"
        if role == "tool" and message["tool_call_id"] not in waiting:
            return "Unexpected tool call id in tool results"
        if (before, role) in (("tool", "user"), ("user", "user"), ("user", "tool"), ("system", "tool")):
            return f"Unexpected role '{role}' after role '{before}'"
        waiting -= {message.get("tool_call_id")}
        waiting |= {call["id"] for call in message.get("tool_calls", [])}
        before = role
    return "Not the same number of function calls and responses" if waiting else None


SKY = {"type": "function_call", "call_id": "c", "name": "sky", "arguments": "{}"}
WET = {"type": "function_call_output", "call_id": "c", "output": "wet"}


@pytest.mark.parametrize(
    "input",
    [
        RESUMED,
        [{"role": "user", "content": "A"}, {"role": "user", "content": "B"}],
        [{"role": "user", "content": "A"}, SKY, WET, {"role": "user", "content": "B"}],
        [{"role": "user", "content": "A"}, SKY, {"role": "user", "content": "B"}, WET, WET],
        [{"role": "user", "content": "A"}, SKY, {"role": "user", "content": "B"}],
        [{"role": "user", "content": "A"}, WET, {"role": "user", "content": "B"}],
        [SKY, {**WET, "output": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]}],
    ],
)
async def test_whatever_a_conversation_looks_like_a_server_that_wants_turns_gets_turns(
    start_gateway: StartGateway, start_server: StartServer, input: list[Item]
) -> None:
    server = await start_server(_as_mistral)
    gateway = await start_gateway("--api", "chat", upstream=server.url)
    assert text(await turn(gateway, input=input)) == "Yes."


def _thinks_as_deepseek(body: Body) -> str | None:
    calling = [message for message in body["messages"] if message.get("tool_calls")]
    if all(message.get("reasoning_content") for message in calling):
        return None
    return "The `reasoning_content` in the thinking mode must be passed back to the API."


def _two_rounds(body: Body) -> Answer:
    rounds = 0
    for message in body["messages"]:
        rounds = {"user": 0, "tool": rounds + 1}.get(message["role"], rounds)
    if rounds == 2:
        return chunks({"content": "Rain."})
    number = sum(message["role"] == "tool" for message in body["messages"])
    return chunks(
        {"reasoning_content": f"Thought {number}."}, calling("sky", f"call_{number}"), finish="tool_calls"
    )


async def test_thoughts_go_back_to_a_server_that_wants_them_with_every_call(
    start_gateway: StartGateway, start_server: StartServer
) -> None:
    server = await start_server(_thinks_as_deepseek, _two_rounds)
    gateway = await start_gateway("--api", "chat", upstream=server.url)
    refused = []
    for is_chained in (True, False):
        items: list[Item] = [{"role": "user", "content": "Weather?"}]
        last = None
        for question in range(2):  # the calls of the first one must have theirs in the second one, too
            for number in range(3):
                got = await turn(gateway, input=items, previous_response_id=last, tools=TOOLS)
                assert got["status"] == "completed", got["error"]
                if number == 2:
                    assert text(got).endswith("Rain.")
                    follow_up: list[Item] = [{"role": "user", "content": "And tomorrow?"}]
                else:
                    follow_up = outputs(got)
                items = follow_up if is_chained else [*items, *got["output"], *follow_up]
                last = got["id"] if is_chained else None
            assert question == 0 or "Thought 0." in str(server.last["messages"])
        refused.append(server.refused)
    assert refused[0] == refused[1]  # it was all learned in the first one


async def test_a_server_that_takes_no_thoughts_is_sent_none(
    start_gateway: StartGateway, start_server: StartServer
) -> None:
    def judge(body: Body) -> str | None:
        at = [n for n, message in enumerate(body["messages"]) if "reasoning_content" in message]
        return f"'messages.{at[0]}' : property 'reasoning_content' is unsupported" if at else None

    server = await start_server(judge)
    setting = {"BACKBURNER_UPSTREAM__REASONING_FIELD": "reasoning_content"}
    gateway = await start_gateway("--api", "chat", upstream=server.url, **setting)
    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    for _ in range(2):
        talk = [{"role": "user", "content": "A"}, thought, {"role": "assistant", "content": "B"}]
        assert text(await turn(gateway, input=[*talk, {"role": "user", "content": "C"}])) == "Yes."
    assert server.refused == 1


def _signed_as_gemini(body: Body) -> Answer | None:
    for message in body["messages"]:
        for call in message.get("tool_calls", [])[:1]:
            signature = call.get("extra_content", {}).get("google", {}).get("thought_signature")
            if signature not in ("c2lnbmVk", "skip_thought_signature_validator"):
                wrong = "Function call is missing a thought_signature in functionCall parts."
                return Answer(
                    [b'[{"error": {"code": 400, "message": "%b"}}]' % wrong.encode()],
                    400,
                    {"Content-Type": "application/json"},
                )
    return None


async def test_calls_of_another_model_have_a_signature_where_there_must_be_one(
    start_gateway: StartGateway, start_server: StartServer
) -> None:
    server = await start_server(_signed_as_gemini)
    gateway = await start_gateway("--api", "chat", upstream=server.url)
    own = {**SKY, "call_id": "d", "extra_content": {"google": {"thought_signature": "c2lnbmVk"}}}
    talk = [{"role": "user", "content": "A"}, SKY, WET, own, {**WET, "call_id": "d"}]
    assert text(await turn(gateway, input=talk)) == "Yes."
    calls = [call for message in server.last["messages"] for call in message.get("tool_calls", [])]
    assert calls[1]["extra_content"] == own["extra_content"]
    assert server.refused == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_question_asked_again_with_every_output_comes_to_an_answer(
    start_gateway: StartGateway, start_server: StartServer, kind: str
) -> None:
    """As Semantic Kernel goes on by id. The model answers once a tool's output is the last word."""

    def answer(body: Body) -> Answer:
        messages = body["messages"]
        if messages[-1]["role"] != "tool" or sum(m["role"] == "tool" for m in messages) < 2:
            return chunks(calling("sky", f"call_{len(server.creates)}"), finish="tool_calls")
        return chunks({"content": "Rain."})

    server = await start_server(lambda body: None, answer)
    recorded = {"BACKBURNER_CONVERSATIONS__RECORD_FOREGROUND": "true"}
    gateway = await start_gateway("--api", "chat", upstream=server.url, **recorded)
    asked = {"role": "user", "content": "Weather?"}
    got = await turn(gateway, kind, input=[asked], tools=TOOLS)
    given: list[Item] = []
    for _ in range(2):
        given = [*outputs(got), *given]
        got = await turn(gateway, kind, input=[asked, *given], previous_response_id=got["id"], tools=TOOLS)
    assert text(got) == "Rain."
    ids = [message["tool_call_id"] for message in server.last["messages"] if message["role"] == "tool"]
    assert len(ids) == len(set(ids)) == 2


# -- the Responses API


@pytest.mark.parametrize("kind", KINDS)
async def test_a_late_developer_message_is_said_at_the_front_in_the_responses_api_too(
    start_gateway: StartGateway, start_server: StartServer, kind: str
) -> None:
    def judge(body: Body) -> str | None:
        roles = ["system"] if body.get("instructions") else []
        roles += [item.get("role", "assistant") for item in body["input"] if isinstance(item, dict)]
        is_late = "system" in roles[1:] or "developer" in roles[1:]
        return "System message must be at the beginning." if is_late else None

    server = await start_server(judge)
    gateway = await start_gateway("--api", "responses", upstream=server.url)
    first = await turn(gateway, input="Hi")
    for _ in range(2):
        got = await turn(
            gateway, kind, instructions="You code.", input=RESUMED[-2:], previous_response_id=first["id"]
        )
        assert text(got) == "Yes."
        assert server.last["instructions"] == "You code.\n\nThe sandbox is writable now."
        assert [item["role"] for item in server.last["input"]] == ["user", "assistant", "user"]
    assert server.refused == 1


THOUGHT = {
    "type": "reasoning",
    "id": "rs_up",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "Hm."}],
}
SHELL = {"type": "shell_call", "id": "sh_up", "call_id": "s", "action": {"commands": ["date"]}}
SHELL_OUTPUT = {"type": "shell_call_output", "id": "so_up", "call_id": "s", "output": [{"stdout": "Monday"}]}
FOUND = {"type": "search_results", "id": "sr_up", "queries": ["tides"], "results": [{"title": "Tides"}]}
PLAIN = {"message", "function_call", "function_call_output"}


def _takes_only(known: set[str], words: str) -> Judge:
    def judge(body: Body) -> str | None:
        items = body["input"] if isinstance(body["input"], list) else []
        for number, item in enumerate(items):
            if (kind := item.get("type", "message")) not in known:
                return words.format(number=number, kind=kind)
        return None

    return judge


@pytest.mark.parametrize(
    ("made", "known", "words"),
    [
        ([THOUGHT], PLAIN, "input[{number}]: unknown input item type: {kind}"),
        ([SHELL, SHELL_OUTPUT], PLAIN | {"reasoning"}, "input: unknown variant `{kind}`, expected `message`"),
        ([FOUND, THOUGHT], PLAIN, "Invalid type for 'input'."),
        ([THOUGHT, SHELL, SHELL_OUTPUT, FOUND], PLAIN, "Invalid value for 'input.{number}.type'"),
    ],
)
@pytest.mark.parametrize("second", KINDS)
async def test_a_turn_with_items_that_their_own_maker_refuses_can_be_gone_on_from(
    start_gateway: StartGateway,
    start_server: StartServer,
    made: list[Item],
    known: set[str],
    words: str,
    second: str,
) -> None:
    def answer(body: Body) -> Answer:
        is_first = not isinstance(body["input"], list)
        return answered(*(made if is_first else []), said("Yes."), stream=body["stream"] is True)

    server = await start_server(_takes_only(known, words), answer)
    gateway = await start_gateway("--api", "responses", upstream=server.url)
    first = await turn(gateway, input="Tides?")
    assert [item["type"] for item in first["output"]] == [*(item["type"] for item in made), "message"]
    for _ in range(2):
        refused = server.refused
        got = await turn(gateway, second, input="And then?", previous_response_id=first["id"])
        assert text(got) == "Yes."
        assert got["previous_response_id"] == first["id"]
    assert server.refused == refused > 0, "it was learned the first time"
    assert server.last["input"][-2]["content"][0]["text"] == "Yes."
    if SHELL in made:
        assert "Monday" in str(server.last["input"])
    if FOUND in made:
        assert "Tides" in str(server.last["input"])


async def test_short_messages_are_made_whole_for_llama_cpp(
    start_gateway: StartGateway, start_server: StartServer
) -> None:
    def judge(body: Body) -> str | None:
        short = [i for i in body["input"] if i.get("role") == "assistant" and "type" not in i]
        return "Cannot determine type of 'item'" if short else None

    server = await start_server(judge)
    gateway = await start_gateway("--api", "responses", upstream=server.url)
    talk = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
    for _ in range(2):
        assert text(await turn(gateway, input=[*talk, {"role": "user", "content": "C"}])) == "Yes."
    assert server.refused == 1


def _keeps_nothing(body: Body) -> Answer | None:
    """OpenAI's rule for thoughts of calls that were not stored."""
    for item in body["input"] if isinstance(body["input"], list) else []:
        if item.get("type") == "reasoning" and (item.get("id") or not item.get("encrypted_content")):
            message = f"Item with id '{item.get('id')}' not found."
            return refusal(f"{message} Items are not persisted when `store` is set to false.", 404)
    return None


def _seals_if_asked(body: Body) -> Answer:
    thought: Item = {"type": "reasoning", "id": "rs_up", "summary": []}
    if SEAL in (body.get("include") or []):
        thought["encrypted_content"] = "sealed"
    return answered(thought, said("4"), stream=body["stream"] is True)


@pytest.mark.parametrize("effort", [{"effort": "low"}, None])
async def test_thoughts_come_sealed_and_go_back_so_where_the_backend_keeps_nothing(
    start_gateway: StartGateway, start_server: StartServer, effort: Any
) -> None:
    server = await start_server(_keeps_nothing, _seals_if_asked)
    gateway = await start_gateway("--api", "responses", upstream=server.url)
    last = None
    for number in range(3):
        got = await turn(gateway, input="2+2?", previous_response_id=last, reasoning=effort)
        assert text(got) == "4"
        last = got["id"]
        is_asked = effort is not None or number > 0  # without being told, it is seen in the first answer
        assert (server.last.get("include") == [SEAL]) is is_asked
    assert server.refused == 1  # of the ids; from then on they are left out
    sealed = [
        item.get("encrypted_content") for item in server.last["input"] if item.get("type") == "reasoning"
    ]
    assert sealed == ["sealed"] * (2 if effort else 1)


async def test_a_server_that_does_not_know_the_include_is_not_asked_twice(
    start_gateway: StartGateway, start_server: StartServer
) -> None:
    server = await start_server(lambda body: "Unknown value in include." if body.get("include") else None)
    gateway = await start_gateway("--api", "responses", upstream=server.url)
    for _ in range(2):
        assert text(await turn(gateway, input="A", reasoning={"effort": "low"})) == "Yes."
    assert server.refused == 1


async def test_seals_that_a_server_cannot_open_any_more_are_left_out_for_once(
    start_gateway: StartGateway, start_server: StartServer
) -> None:
    lost: set[str] = set()

    def judge(body: Body) -> Answer | None:
        items = body["input"] if isinstance(body["input"], list) else []
        wrong = any(item.get("encrypted_content") in lost for item in items)
        message = "The encrypted content could not be verified."
        return refusal(message, code="invalid_encrypted_content") if wrong else None

    server = await start_server(judge, _seals_if_asked)
    gateway = await start_gateway("--api", "responses", upstream=server.url)
    first = await turn(gateway, input="2+2?", reasoning={"effort": "low"})
    lost.add("sealed")
    assert text(await turn(gateway, input="A", previous_response_id=first["id"])) == "4"
    assert "sealed" not in str(server.last["input"])
    lost.clear()
    assert text(await turn(gateway, input="B", previous_response_id=first["id"])) == "4"
    assert "sealed" in str(server.last["input"])


async def test_a_conversation_that_changes_backends_leaves_ids_and_seals_behind(
    start_gateway: StartGateway, start_server: StartServer, tmp_path: Path
) -> None:
    hosted = {"type": "web_search_call", "id": "ws_up", "status": "completed", "action": {"query": "tides"}}

    def answer(body: Body) -> Answer:
        thought = {"type": "reasoning", "id": "rs_up", "summary": [], "encrypted_content": "sealed"}
        return answered(thought, hosted, said("At nine."))

    big = await start_server(lambda body: None, answer)
    small = await start_server(_takes_only(PLAIN, "Invalid input"))
    chat = await start_server(lambda body: None)
    backends = {
        "big": {"url": big.url, "models": ["big"], "api": "responses"},
        "small": {"url": small.url, "models": ["small"], "api": "responses"},
        "chat": {"url": chat.url, "models": ["chat"], "api": "chat"},
    }
    config = tmp_path / "backends.yaml"
    config.write_text(yaml.safe_dump({"backends": backends}))
    gateway = await start_gateway("--config", str(config), upstream="")
    first = await turn(gateway, model="big", input="Tides?")
    second = await turn(gateway, model="small", input="When?", previous_response_id=first["id"])
    assert text(second) == "Yes."
    assert small.refused == 0
    third = await turn(gateway, model="chat", input="Sure?", previous_response_id=second["id"])
    assert text(third) == "Yes."
    for told in (str(small.last["input"]), str(chat.last["messages"])):
        assert "tides" in told
        assert "At nine." in told
        assert not any(mark in told for mark in ("sealed", "rs_up", "ws_up", "msg_up"))
    again = await turn(gateway, model="big", input="Thanks.", previous_response_id=third["id"])
    assert again["status"] == "completed"
    own = [item for item in big.last["input"] if item.get("type") == "reasoning"]
    assert [item.get("encrypted_content") for item in own] == ["sealed"]


# -- what cannot be learned


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_a_refusal_that_says_nothing_of_the_form_stands_after_one_call(
    start_gateway: StartGateway, start_server: StartServer, api: str
) -> None:
    server = await start_server(lambda body: None)
    gateway = await start_gateway("--api", api, upstream=server.url)
    first = await turn(gateway, input="A")
    server.judge = lambda body: "This model's maximum context length is 4096 tokens."
    failed = await turn(gateway, input="B", previous_response_id=first["id"])
    assert failed["status"] == "failed"
    assert "4096" in failed["error"]["message"]
    assert len(server.creates) == 2
    passed = await gateway.call(
        "POST", "/responses", {"model": "m", "input": "B", "previous_response_id": first["id"]}
    )
    assert passed.status == 400
    assert "4096" in passed.error["message"]
    assert len(server.creates) == 3


async def test_a_server_that_finds_ever_new_faults_is_not_asked_for_ever(
    start_gateway: StartGateway, start_server: StartServer
) -> None:
    faults = iter(range(20))
    server = await start_server(lambda body: f"input[0]: unknown item type 'kind_{next(faults)}_call'")
    gateway = await start_gateway("--api", "responses", upstream=server.url)
    odd = [{"type": f"kind_{number}_call", "id": f"k_{number}", "what": [number]} for number in range(20)]
    failed = await turn(gateway, input=[*odd, {"role": "user", "content": "A"}])
    assert failed["status"] == "failed"
    assert len(server.creates) == 6


async def test_what_a_call_that_failed_has_taught_is_forgotten(
    start_gateway: StartGateway, start_server: StartServer
) -> None:
    def judge(body: Body) -> str | None:
        return (
            "input[1]: unknown item type" if any("type" in item for item in body["input"]) else "Out of luck."
        )

    server = await start_server(judge)
    gateway = await start_gateway("--api", "responses", upstream=server.url)
    talk: list[Item] = [{"role": "user", "content": "A"}, THOUGHT]
    assert (await turn(gateway, input=talk))["status"] == "failed"
    server.judge = lambda body: None
    assert text(await turn(gateway, input=talk)) == "Yes."
    assert server.last["input"] == talk
