"""What is not a background response passes through as it came; what is keeps its vendor fields."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from openai import AsyncOpenAI, OpenAI, UnprocessableEntityError
from pydantic import BaseModel

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import KEY, WAIT_S, Gateway
from tests.acceptance.replay import Answer, ReplayServer, json_answer, recording, replay

CHAT: Any = {"model": "tiny", "messages": [{"role": "user", "content": "Count to 5."}]}

# Nothing here says `"background": true` of itself.
PLAIN = [
    b'{"model":"tiny","input":"Count."}',
    b'{ "input" : "\\u0043ount \xe2\x80\xa8 \xc3\xa9 1.0e+00",\n "n":1.0,\t"model" :"tiny" }  ',
    b'{"model":"tiny","background":false,"input":"Count."}',
    b'{"model":"tiny", "background" : null, "input":"Count."}',
    b'{"model":"tiny","x":{"background":"true"},"input":"Count."}',
    b'{"model":"tiny","input":"say \\"background\\": true"}',
    b'{"model":"tiny","x":{"background":true},"input":"Count.","input":"twice"}',
    b'{"model":"tiny","previous_response_id":null,"input":"Count."}',
    b"{broken",
    b"[]",
    b"",
]


class Animal(BaseModel):
    animal: Literal["otter", "fox"]


async def test_a_plain_create_reaches_the_model_server_byte_for_byte(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    for body in PLAIN:
        replay_server.script(replay("vllm/responses-sync"))
        answer = await gateway.call("POST", "/responses", body)
        assert answer.status == 200, body
        assert answer.body == recording("vllm/responses-sync").body, body
        call = replay_server.creates[-1]
        assert call.body == body
        assert call.header("content-length") == str(len(body))
        assert call.header("authorization") == f"Bearer {KEY}"


async def test_vendor_fields_of_a_background_request_reach_the_model_server(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    created = await gateway.client().responses.create(
        model="tiny",
        input="Count.",
        background=True,
        instructions="Be short.",
        temperature=0.5,
        extra_body={
            "top_k": 7,
            "chat_template_kwargs": {"enable_thinking": False},
            "vllm_xargs": {"a": [1, 2.5, None, "ü"]},
        },
        extra_headers={"X-Vendor": "yes", "OpenAI-Organization": "org-1"},
    )
    await gateway.ended(created.id)
    [call] = replay_server.creates
    assert call.json() == {
        "model": "tiny",
        "input": "Count.",
        "instructions": "Be short.",
        "temperature": 0.5,
        "top_k": 7,
        "chat_template_kwargs": {"enable_thinking": False},
        "vllm_xargs": {"a": [1, 2.5, None, "ü"]},
        "stream": True,
        "store": False,
    }
    assert call.header("x-vendor") == "yes"
    assert call.header("openai-organization") == "org-1"
    assert call.header("authorization") == f"Bearer {KEY}"
    assert call.target == "/v1/responses"


async def test_structured_output_is_parsed_from_a_background_stream(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    replay_server.script(replay("vllm/responses-json-schema"))
    client = gateway.client()
    async with client.responses.stream(
        model="tiny", input="Which animal?", text_format=Animal, background=True
    ) as stream:
        final = await stream.get_final_response()
    assert final.output_parsed == Animal(animal="fox")
    assert final.text is not None
    schema = replay_server.creates[0].json()["text"]["format"]
    assert schema["type"] == "json_schema"
    async with client.responses.stream(response_id=final.id, text_format=Animal) as again:
        assert (await again.get_final_response()).output_parsed == Animal(animal="fox")
    replay_server.script(replay("vllm/responses-json-schema"))
    plain = await client.responses.parse(model="tiny", input="Which animal?", text_format=Animal)
    assert plain.output_parsed == Animal(animal="fox")


async def _everything(client: AsyncOpenAI) -> list[Any]:
    """One of each call that the gateway does not own."""
    chunks = await client.chat.completions.create(**CHAT, stream=True)
    events = await client.responses.create(model="tiny", input="Count.", stream=True)
    return [
        await client.chat.completions.create(**CHAT),
        [chunk async for chunk in chunks],
        [event async for event in events],
        await client.responses.create(model="tiny", input="Count."),
        [model async for model in client.models.list()],
        await client.embeddings.create(model="tiny", input=["a", "b"], encoding_format="float"),
    ]


async def test_calls_that_are_not_ours_equal_direct_ones(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    through = await _everything(gateway.client())
    async with AsyncOpenAI(base_url=replay_server.url, api_key=KEY, max_retries=0, timeout=WAIT_S) as direct:
        assert through == await _everything(direct)
    half = len(replay_server.calls) // 2
    for passed, straight in zip(replay_server.calls[:half], replay_server.calls[half:], strict=True):
        assert (passed.method, passed.target, passed.body) == (
            straight.method,
            straight.target,
            straight.body,
        )
        own = {"connection", "host", "via", "x-request-id"}
        assert {(n.lower(), v) for n, v in passed.headers if n.lower() not in own} == {
            (n.lower(), v) for n, v in straight.headers if n.lower() not in own
        }


async def test_the_synchronous_sdk_and_the_demo_server_agree_through_the_gateway(
    start_gateway: StartGateway, demo_server: str
) -> None:
    gateway = await start_gateway(upstream=demo_server)

    def chat(url: str) -> tuple[str | None, str]:
        with OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=20) as client:
            whole = client.chat.completions.create(**{**CHAT, "model": "demo-model"})
            pieces = client.chat.completions.create(**{**CHAT, "model": "demo-model"}, stream=True)
            text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
            return whole.choices[0].message.content, text

    assert await asyncio.to_thread(chat, gateway.url) == await asyncio.to_thread(chat, demo_server)
    created = await gateway.client().responses.create(model="demo-model", input="Hello!", background=True)
    assert (await gateway.ended(created.id))["status"] == "completed"


async def test_an_upload_passes_byte_for_byte(gateway: Gateway, replay_server: ReplayServer) -> None:
    content = bytes(range(256)) * 4096
    replay_server.script(
        json_answer({"id": "file-1", "object": "file", "bytes": len(content), "filename": "f.bin"})
    )
    uploaded = await gateway.client().files.create(file=("f.bin", content), purpose="assistants", timeout=20)
    assert (uploaded.id, uploaded.bytes) == ("file-1", len(content))
    [call] = replay_server.creates
    assert content in call.body
    assert (call.header("content-type") or "").startswith("multipart/form-data; boundary=")


async def test_routes_that_look_like_ours_go_to_the_model_server(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    client = gateway.client()
    cases: list[tuple[Callable[[], Awaitable[Any]], Answer, str]] = [
        (
            lambda: client.responses.input_tokens.count(model="tiny", input="Count."),
            json_answer({"object": "response.input_tokens", "input_tokens": 3}),
            "/v1/responses/input_tokens",
        ),
        (
            lambda: client.responses.compact(model="tiny", input="Count."),
            json_answer({"id": "c", "object": "response.compaction", "created_at": 1, "output": []}),
            "/v1/responses/compact",
        ),
        (
            lambda: client.conversations.create(metadata={"a": "b"}),
            json_answer({"id": "conv_1", "object": "conversation", "created_at": 1, "metadata": {}}),
            "/v1/conversations",
        ),
    ]
    for ask, answer, target in cases:
        replay_server.script(answer)
        got = await ask()
        assert replay_server.calls[-1].target == target
        assert got.object in answer.blocks[0].decode()


async def test_an_id_that_is_not_ours_is_the_model_servers_to_answer(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    replay_server.script(json_answer({"id": "resp_theirs", "object": "response", "status": "cancelled"}))
    cancelled = await gateway.client().responses.cancel("resp_theirs")
    assert cancelled.id == "resp_theirs"
    assert replay_server.calls[-1].target == "/v1/responses/resp_theirs/cancel"


async def test_an_error_of_the_model_server_passes_with_its_status_and_words(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    replay_server.script(replay("transformers/responses-unknown-field"))
    with pytest.raises(UnprocessableEntityError) as refused:
        await gateway.client().responses.create(model="tiny", input="Count.", extra_body={"zzz": 1})
    assert refused.value.response.content == recording("transformers/responses-unknown-field").body


@pytest.mark.parametrize("given", ["api_key", "api_key_file", "api_key_env"])
async def test_the_gateways_own_key_takes_the_place_of_the_callers(
    start_gateway: StartGateway, replay_server: ReplayServer, tmp_path: Path, given: str
) -> None:
    key = "sk-of-the-gateway-987"
    file = tmp_path / "key"
    file.write_text(key)
    file.chmod(0o600)
    value = {"api_key": key, "api_key_file": file, "api_key_env": "GPU_KEY"}[given]
    gateway = await start_gateway(**{f"BACKBURNER_UPSTREAM__{given.upper()}": value, "GPU_KEY": key})
    client = gateway.client()
    created = await client.responses.create(model="tiny", input="Count.", background=True)
    await gateway.ended(created.id)
    await client.responses.create(model="tiny", input="Count.")
    for call in replay_server.creates:
        assert call.header("authorization") == f"Bearer {key}"
    before = len(replay_server.calls)
    assert (await gateway.call("GET", "/responses/resp_theirs")).status == 404
    assert len(replay_server.calls) == before  # through the shared key it would be another caller's
