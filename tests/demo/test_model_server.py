"""The simulated model server as the unmodified SDK meets it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionToolParam
from openai.types.responses import FunctionToolParam, ResponseStreamEvent

from demo.model_server import ModelServer, listening, make_app

MODEL = "demo-model"
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"location": {"type": "string"}},
    "required": ["location"],
}
TOOL: FunctionToolParam = {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}
CHAT_TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": SCHEMA},
}


@dataclass(frozen=True, slots=True)
class Served:
    """A demo server on a real socket, and the SDK in front of it."""

    url: str
    sdk: AsyncOpenAI


@asynccontextmanager
async def serve(words_per_second: float) -> AsyncIterator[Served]:
    app = make_app(ModelServer(words_per_second=words_per_second))
    async with (
        listening(app, "127.0.0.1", 0) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as sdk,
    ):
        yield Served(url, sdk)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """As fast as it goes."""
    async with serve(100_000) as served:
        yield served


@pytest.fixture
async def slow() -> AsyncIterator[Served]:
    """So slow that a count to 10 000 cannot end while a test runs, unless someone stops it."""
    async with serve(20) as served:
        yield served


async def test_models_say_that_they_are_simulated(served: Served) -> None:
    models = await served.sdk.models.list()
    assert [model.id for model in models.data] == [MODEL]
    assert "simulation" in models.data[0].owned_by


async def test_response_without_stream(served: Served) -> None:
    response = await served.sdk.responses.create(model=MODEL, input="Count to 3", instructions="Be brief")
    assert response.status == "completed"
    assert response.output_text == "1 2 3."
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (5, 3)


async def test_response_stream_has_vllm_order_and_numbers(served: Served) -> None:
    stream = await served.sdk.responses.create(model=MODEL, input="Count to 3", stream=True)
    events = [event async for event in stream]
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 3,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_stream_helper_of_the_sdk_accepts_the_stream(served: Served) -> None:
    async with served.sdk.responses.stream(model=MODEL, input="Tell me a story") as stream:
        final = await stream.get_final_response()
    assert final.output_text.startswith("Once upon a time")


async def test_token_limit_makes_it_incomplete_and_still_ends_with_completed(served: Served) -> None:
    stream = await served.sdk.responses.create(
        model=MODEL, input="Count to 30", max_output_tokens=16, stream=True
    )
    *_, last = [event async for event in stream]
    assert last.type == "response.completed"
    assert last.response.status == "incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert len(last.response.output_text.split()) == 16


async def test_earlier_turns_are_remembered(served: Served) -> None:
    response = await served.sdk.responses.create(
        model=MODEL,
        input=[
            {"role": "user", "content": "My name is Alice."},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": [{"type": "input_text", "text": "What is my name?"}]},
        ],
    )
    assert response.output_text == "Your name is Alice."


async def test_tool_round_trip(served: Served) -> None:
    question: Any = {"role": "user", "content": "What is the weather in Paris?"}
    stream = await served.sdk.responses.create(model=MODEL, input=[question], tools=[TOOL], stream=True)
    events = [event async for event in stream]
    deltas = "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta")
    final = events[-1]
    assert final.type == "response.completed"
    call = final.response.output[0]
    assert call.type == "function_call"
    assert call.arguments == deltas
    assert json.loads(deltas) == {"location": "Paris"}

    earlier: Any = call.to_dict()
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "15 degrees"}
    response = await served.sdk.responses.create(model=MODEL, input=[question, earlier, result], tools=[TOOL])
    assert "15 degrees" in response.output_text


async def test_chat_without_stream(served: Served) -> None:
    chat = await served.sdk.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Count to 9"}], max_tokens=4
    )
    assert chat.choices[0].message.content == "1 2 3 4"
    assert chat.choices[0].finish_reason == "length"


async def test_chat_stream_with_usage(served: Served) -> None:
    stream = await served.sdk.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Count to 3"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "1 2 3."
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 6


async def test_chat_tool_calls_are_streamed(served: Served) -> None:
    stream = await served.sdk.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in New York?"}],
        tools=[CHAT_TOOL],
        stream=True,
    )
    choices = [chunk.choices[0] async for chunk in stream]
    parts = [part.function for choice in choices for part in choice.delta.tool_calls or [] if part.function]
    assert parts[0].name == "get_weather"
    assert json.loads("".join(part.arguments or "" for part in parts)) == {"location": "New York"}
    assert choices[-1].finish_reason == "tool_calls"


async def test_embeddings_of_equal_texts_are_equal(served: Served) -> None:
    answer = await served.sdk.embeddings.create(model=MODEL, input=["a", "b", "a"])
    first, second, third = (row.embedding for row in answer.data)
    assert first == third != second
    plain = await served.sdk.embeddings.create(model=MODEL, input="a", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(first, abs=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b'{"model": ', 400, "body.10"),
        (b"[]", 400, "body"),
        (b'{"model": "demo-model"}', 400, "body.input"),
        (b'{"input": 5}', 400, "body.input"),
        (b'{"input": [{"content": "no role"}]}', 400, "body.input.0"),
        (b'{"input": "x", "max_output_tokens": "many"}', 400, "body.max_output_tokens"),
        (b'{"input": "x", "stream": "yes"}', 400, "body.stream"),
        (b'{"input": "x", "background": true}', 400, "background"),
        (b'{"input": "x", "model": "no-such-model"}', 404, "model"),
        (b'{"input": "x", "previous_response_id": "resp_0"}', 404, "response_id"),
    ],
)
async def test_bad_request_is_refused_in_vllm_shape(
    served: Served, body: bytes, status: int, param: str
) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{served.url}/v1/responses", data=body) as answer,
    ):
        assert answer.status == status
        error = (await answer.json())["error"]
    assert error["code"] == status
    assert error["param"] == param


async def test_stored_responses_do_not_exist(served: Served) -> None:
    with pytest.raises(openai.NotFoundError, match="'resp_0' not found"):
        await served.sdk.responses.retrieve("resp_0")


async def test_demo_error_500(served: Served) -> None:
    with pytest.raises(openai.InternalServerError):
        await served.sdk.responses.create(model=MODEL, input="x", metadata={"demo_error": "500"})


async def test_demo_error_event_comes_after_three_words(served: Served) -> None:
    stream = await served.sdk.responses.create(
        model=MODEL, input="Count to 9", stream=True, metadata={"demo_error": "error_event"}
    )
    types: list[str] = []
    with pytest.raises(openai.APIError, match="asked to fail"):
        await _note_types(stream, types)
    assert types.count("response.output_text.delta") == 3


@pytest.mark.parametrize("stream", [True, False])
async def test_demo_error_cut_breaks_the_connection(served: Served, stream: bool) -> None:
    body = {"input": "Count to 9", "stream": stream, "metadata": {"demo_error": "cut"}}
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientError):
            async with http.post(f"{served.url}/v1/responses", json=body) as answer:
                await answer.read()


async def test_demo_error_garbage_is_html(served: Served) -> None:
    body = {"input": "x", "stream": True, "metadata": {"demo_error": "garbage"}}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{served.url}/v1/responses", json=body) as answer,
    ):
        assert answer.status == 200
        assert answer.content_type == "text/html"


async def test_key_is_asked_for_under_v1_only() -> None:
    app = make_app(ModelServer(words_per_second=1000), api_key="right")
    async with listening(app, "127.0.0.1", 0) as url:
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as sdk:
            with pytest.raises(openai.AuthenticationError):
                await sdk.models.list()
            assert (await sdk.with_options(api_key="right").models.list()).data
        async with aiohttp.ClientSession() as http, http.get(f"{url}/health") as answer:
            assert answer.status == 200


@pytest.mark.parametrize("path", ["responses", "chat/completions"])
@pytest.mark.parametrize("stream", [True, False])
async def test_client_that_leaves_stops_the_work(slow: Served, path: str, stream: bool) -> None:
    prompt = "Count to 10000"
    body = {"input": prompt, "messages": [{"role": "user", "content": prompt}], "stream": stream}
    async with aiohttp.ClientSession() as http:
        leaving = asyncio.create_task(_read(http, f"{slow.url}/v1/{path}", body))
        await _until_gauge(http, slow, "demo:tokens_generated_total", at_least=2)
        assert await _gauge(http, slow, "demo:num_requests_running") == 1
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await _until_gauge(http, slow, "demo:num_requests_running", at_most=0)
        assert await _gauge(http, slow, "demo:tokens_generated_total") < 200


async def _note_types(stream: AsyncIterator[ResponseStreamEvent], types: list[str]) -> None:
    async for event in stream:
        types.append(event.type)  # noqa: PERF401 -- a comprehension would lose what came before the error


async def _read(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> None:
    async with http.post(url, json=body) as answer:
        await answer.read()


async def _until_gauge(
    http: aiohttp.ClientSession, served: Served, name: str, *, at_least: float = 0, at_most: float = 1e9
) -> None:
    """Poll, bounded: the server offers no other signal, and neither does a real one."""
    async with asyncio.timeout(5):
        while not at_least <= await _gauge(http, served, name) <= at_most:
            await asyncio.sleep(0.01)


async def _gauge(http: aiohttp.ClientSession, served: Served, name: str) -> float:
    async with http.get(f"{served.url}/metrics") as answer:
        lines = dict(line.split() for line in (await answer.text()).splitlines() if not line.startswith("#"))
    return float(lines[name])
