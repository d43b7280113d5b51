"""Request bodies in content codings are decoded where the gateway must know what they say."""

from __future__ import annotations

import asyncio
import gzip
import sys
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import orjson
import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.fleet import MODEL, Fleet, ask, asked_of
from tests.acceptance.harness import Gateway, frames, payload
from tests.acceptance.replay import Answer, ReplayServer, json_answer, recording, replay

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ASK: dict[str, Any] = {"model": "tiny", "input": "Count to 5."}
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "X-GZip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "gzip, zstd": lambda data: zstd.compress(gzip.compress(data)),
}


async def send(
    gateway: Gateway, coding: str, body: dict[str, Any] | bytes, path: str = "/responses"
) -> tuple[int, dict[str, str], bytes]:
    """POST a body in a coding."""
    data = orjson.dumps(body) if isinstance(body, dict) else body
    answer = await gateway.call("POST", path, CODINGS[coding](data), more={"Content-Encoding": coding})
    return answer.status, answer.headers, answer.body


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_coded_create_is_what_it_decodes_to(
    gateway: Gateway, replay_server: ReplayServer, coding: str
) -> None:
    plain = b'{ "model":"tiny","input" :"C\\u006funt."}'
    replay_server.script(replay("vllm/responses-sync"))
    status, _, body = await send(gateway, coding, plain)
    assert (status, body) == (200, recording("vllm/responses-sync").body)
    [call] = replay_server.creates
    assert call.body == plain  # what it decodes to, byte for byte, and not in any coding any more
    assert call.header("content-encoding") is None
    assert call.header("content-length") == str(len(plain))

    status, _, body = await send(gateway, coding, {**ASK, "background": True, "stream": True})
    assert status == 200
    final = payload(frames(body)[-1])
    assert final["type"] == "response.completed"
    first = final["response"]["id"]
    status, _, _ = await send(
        gateway, coding, {**ASK, "previous_response_id": first}
    )  # with the earlier turn
    assert status == 200
    assert len(replay_server.creates[-1].json()["input"]) > 1


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_coded_create_is_translated_for_a_chat_backend(
    start_gateway: StartGateway, replay_server: ReplayServer, coding: str
) -> None:
    gateway = await start_gateway("--api", "chat")
    for more in ({}, {"stream": True}, {"background": True, "stream": True}):
        replay_server.script(replay("vllm/chat-stream" if more else "vllm/chat-sync"))
        status, _, body = await send(gateway, coding, {**ASK, **more})
        assert (status, b'"completed"' in body) == (200, True), body
        assert replay_server.creates[-1].target == "/v1/chat/completions"


async def test_a_coded_body_finds_the_backend_of_its_model_on_every_path(fleet: Fleet) -> None:
    one, two = await fleet.server(), await fleet.server()
    backends: dict[str, dict[str, Any]] = {
        "one": {"url": one.url, "models": ["first"], "rename": {"first": MODEL}},
        "two": {"url": two.url, "models": ["*"], "rename": {"second": MODEL}},
    }
    gateway = await fleet.gateway(backends)
    chat = {"model": "second", "messages": [{"role": "user", "content": "Count to 3"}]}
    status, _, body = await send(gateway, "zstd", chat, "/chat/completions")
    assert status == 200, body
    assert (await asked_of(gateway, one), await asked_of(gateway, two)) == (0, 1)
    status, _, _ = await send(gateway, "gzip", {**chat, "model": "first"}, "/chat/completions")
    assert (await asked_of(gateway, one), await asked_of(gateway, two)) == (1, 1)
    unknown = await gateway.call(
        "POST", "/chat/completions", orjson.dumps(chat), more={"Content-Encoding": "lz4"}
    )
    assert unknown.status == 415
    assert (await ask(gateway, model="second")).status == 200  # it goes on


@pytest.mark.parametrize("coding", ["compress", "lz4", "gzip, unknown", "gzip, gzip, gzip, gzip, gzip"])
async def test_a_coding_that_cannot_be_read_is_refused_with_those_that_can(
    gateway: Gateway, replay_server: ReplayServer, coding: str
) -> None:
    for more in ({}, {"background": True}):
        refused = await gateway.call(
            "POST", "/responses", orjson.dumps({**ASK, **more}), more={"Content-Encoding": coding}
        )
        assert refused.status == 415
        assert refused.headers["accept-encoding"] == "gzip, deflate, br, zstd"
        assert refused.error["code"] == "unsupported_content_encoding"
        assert "gzip, deflate, br, zstd" in refused.error["message"]
    assert replay_server.creates == []


async def test_a_client_that_waits_to_be_asked_for_an_unreadable_body_is_told_so_first(
    gateway: Gateway,
) -> None:
    host, _, port = gateway.url.removeprefix("http://").removesuffix("/v1").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/responses HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\nContent-Encoding: exi\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    assert (await reader.readline()).split()[1] == b"415"
    writer.close()


@pytest.mark.parametrize(
    ("coding", "data", "words"),
    [
        ("gzip", orjson.dumps(ASK), "is not valid"),
        ("gzip", gzip.compress(orjson.dumps(ASK))[:-4], "ends too early"),
        ("gzip", b"", "ends too early"),
        ("deflate", zlib.compress(orjson.dumps(ASK)) + b"more", "goes on behind its end"),
        ("br", brotli.compress(orjson.dumps(ASK))[:-2], "ends too early"),
        ("zstd", zstd.compress(orjson.dumps(ASK)) + b"more", "is not valid"),
        ("zstd, gzip", gzip.compress(b"no zstd"), "is not valid"),
    ],
    ids=["no-gzip", "gzip-cut", "nothing", "deflate-and-more", "br-cut", "zstd-and-more", "gzip-of-no-zstd"],
)
async def test_a_body_that_is_not_what_its_coding_says_is_refused_in_words(
    gateway: Gateway, replay_server: ReplayServer, coding: str, data: bytes, words: str
) -> None:
    refused = await gateway.call("POST", "/responses", data, more={"Content-Encoding": coding})
    assert (refused.status, refused.error["code"]) == (400, "invalid_content_encoding")
    assert words in refused.error["message"]
    assert replay_server.creates == []


async def test_the_limits_hold_for_what_a_body_decodes_to(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(
        BACKBURNER_SERVER__BODY_BYTES_MAX=100_000, BACKBURNER_BACKGROUND__BODY_BYTES_MAX=50_000
    )
    for coding in CODINGS:
        for size, more, expected in (
            (150_000, {}, 413),
            (60_000, {"background": True}, 413),
            (60_000, {}, 200),
            (40_000, {"background": True}, 200),
        ):
            body = {**ASK, "input": "a" * size, **more}
            assert (await send(gateway, coding, body))[0] == expected, (coding, size, more)
            replay_server.release_all()


async def test_a_salted_prompt_is_salted_in_whatever_coding_it_came(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    """Else a caller could measure, in a coding, what others have asked."""
    gateway = await start_gateway(BACKBURNER_UPSTREAM__CACHE_SALT="true")
    prompts: dict[str, dict[str, Any]] = {
        "/responses": ASK,
        "/chat/completions": {"model": "tiny", "messages": []},
        "/completions": {"model": "tiny", "prompt": "Count."},
    }
    for path, prompt in prompts.items():
        replay_server.script(json_answer({}))
        assert (await send(gateway, "br", prompt, path))[0] == 200
        assert len(replay_server.creates[-1].json()["cache_salt"]) == 64


async def test_one_key_with_one_body_is_one_response_in_whatever_coding(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = Answer(replay("vllm/responses-stream").blocks, hold_after=0)
    replay_server.script(held)
    data = orjson.dumps({**ASK, "background": True})
    ids = set()
    for coding in ("gzip", "zstd", "br"):
        more = {"Content-Encoding": coding, "Idempotency-Key": "once"}
        made = await gateway.call("POST", "/responses", CODINGS[coding](data), more=more)
        ids.add(made.json()["id"])
    assert len(ids) == 1
