"""Pages of other origins: one policy for every answer, and none that promises what another answer breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from demo.model_server import listening
from gateway.api.http.errors import METHODS
from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, Reply
from tests.acceptance.replay import recording

PAGE = "https://ui.example"
STRANGER = {"Origin": "https://evil.example"}
FROM_PAGE = {"Origin": PAGE}
ASK: dict[str, Any] = {"model": "tiny", "input": "Count to 5."}
ASKS_FIRST = {
    **FROM_PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
}
OF_BACKEND = {
    "Access-Control-Allow-Origin": "https://of.backend",
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "x-of-backend",
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Expose-Headers": "x-of-backend",
    "Access-Control-Max-Age": "9",
    "Vary": "Accept-Encoding",
    "X-Of-Backend": "yes",
}


@dataclass(frozen=True, slots=True)
class Backend:
    """A model server with a policy of its own on every answer, and what it was asked."""

    url: str
    asked: list[web.Request]


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers.get("User-Agent") != "backburner-healthcheck":
            asked.append(request)
        await request.read()
        if request.method == "OPTIONS":
            return web.Response(status=200, headers=OF_BACKEND)
        name = "responses-stream" if request.path.endswith("/responses") else "unknown-path"
        body = recording(f"vllm/{name}").body
        status = 200 if name == "responses-stream" else 404
        return web.Response(
            status=status, body=body, headers={**OF_BACKEND, "Content-Type": "text/event-stream"}
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with listening(app, "127.0.0.1", 0) as root:
        yield Backend(f"{root}/v1", asked)


def _cors(answer: Reply) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


async def _every_answer(gateway: Gateway, more: dict[str, str]) -> list[tuple[str, Reply]]:
    """One of each kind of answer that a page may get."""
    created = await gateway.call("POST", "/responses", {**ASK, "background": True, "stream": True}, more=more)
    response_id = orjson.loads(created.body.split(b"data: ", 1)[1].split(b"\n", 1)[0])["response"]["id"]
    one = f"/responses/{response_id}"
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/responses", {**ASK, "background": True}),
        ("POST", "/responses", {**ASK, "stream": True}),
        ("POST", "/responses", ASK),
        ("POST", "/responses", {**ASK, "background": True, "top_p": "x"}),
        ("GET", one, None),
        ("GET", f"{one}?stream=true", None),
        ("GET", f"{one}?stream=true&starting_after=x", None),
        ("GET", f"{one}/input_items", None),
        ("POST", f"{one}/cancel", None),
        ("DELETE", one, None),
        ("GET", one, None),
        ("POST", "/chat/completions", {"model": "tiny", "messages": []}),
        ("GET", "/nothing", None),
        ("GET", "/..%2fnothing", None),
    ]
    answers = [("create", created)]
    for method, path, body in calls:
        answers.append((f"{method} {path}", await gateway.call(method, path, body, more=more)))
    return answers


async def test_a_page_of_a_listed_origin_may_read_every_answer(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(
        upstream=backend.url, BACKBURNER_SERVER__CORS_ORIGINS=f"{PAGE},http://localhost:3000"
    )
    for what, answer in await _every_answer(gateway, FROM_PAGE):
        found = _cors(answer)
        shown = found.pop("access-control-expose-headers").lower().split(", ")
        assert {"x-request-id", "openai-poll-after-ms", "retry-after"} <= set(shown), what
        assert ("x-of-backend" in shown) is ("x-of-backend" in answer.headers), what
        assert found == {"access-control-allow-origin": PAGE}, what
        assert "Origin" in answer.headers["vary"].split(", "), what
    assert all("Origin" not in call.headers for call in backend.asked)  # it was judged here


async def test_a_page_of_another_origin_and_no_page_at_all_are_answered_without_a_word(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(upstream=backend.url, BACKBURNER_SERVER__CORS_ORIGINS=PAGE)
    for headers in (
        STRANGER,
        {},
        {"Origin": "null"},
        {"Origin": f"{PAGE}.evil.example"},
        {"Origin": f"{PAGE}:444"},
    ):
        for what, answer in await _every_answer(gateway, headers):
            assert _cors(answer) == {}, what
            assert answer.headers["vary"].endswith("Origin"), what
    refused = await gateway.call("OPTIONS", "/responses", more={**ASKS_FIRST, **STRANGER})
    assert (refused.status, refused.error["code"]) == (403, "origin_not_allowed")
    assert _cors(refused) == {}


@pytest.mark.parametrize("path", ["/responses", "/responses/resp_1/cancel", "/chat/completions", "/models"])
async def test_a_preflight_is_answered_by_the_gateway_whoever_may_come_in(
    start_gateway: StartGateway, backend: Backend, tmp_path: Path, path: str
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{'a' * 64} team-a\n")
    keys.chmod(0o600)
    gateway = await start_gateway(
        upstream=backend.url,
        BACKBURNER_SERVER__CORS_ORIGINS=PAGE,
        BACKBURNER_SERVER__CORS_MAX_AGE_S=77,
        BACKBURNER_TENANTS__MODE="static_keys",
        BACKBURNER_TENANTS__KEYS_FILE=keys,
    )
    answer = await gateway.call("OPTIONS", path, key=None, more=ASKS_FIRST)
    assert (answer.status, answer.body) == (204, b"")
    assert _cors(answer) == {
        "access-control-allow-origin": PAGE,
        "access-control-allow-methods": METHODS,
        "access-control-allow-headers": "authorization,content-type,x-stainless-lang",
        "access-control-max-age": "77",
    }
    assert answer.headers["vary"] == "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    private = await gateway.call(
        "OPTIONS", path, key=None, more={**ASKS_FIRST, "Access-Control-Request-Private-Network": "true"}
    )
    assert _cors(private)["access-control-allow-private-network"] == "true"
    shut_out = await gateway.call("POST", path, ASK, key="wrong", more=FROM_PAGE)
    assert (shut_out.status, _cors(shut_out)["access-control-allow-origin"]) == (401, PAGE)
    assert backend.asked == []


async def test_any_origin_may_be_let_in_and_then_never_with_credentials(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(upstream=backend.url, BACKBURNER_SERVER__CORS_ORIGINS="*")
    for what, answer in await _every_answer(gateway, STRANGER):
        found = _cors(answer)
        assert found.pop("access-control-expose-headers"), what
        assert found == {"access-control-allow-origin": "*"}, what
    asked = await gateway.call("OPTIONS", "/responses", more=ASKS_FIRST)
    assert _cors(asked)["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in asked.headers


async def test_credentials_are_for_listed_origins_if_the_settings_say_so(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(
        upstream=backend.url,
        BACKBURNER_SERVER__CORS_ORIGINS=PAGE,
        BACKBURNER_SERVER__CORS_CREDENTIALS="true",
    )
    for method, more in (("OPTIONS", ASKS_FIRST), ("GET", FROM_PAGE)):
        answer = await gateway.call(method, "/responses/resp_1", more=more)
        assert _cors(answer)["access-control-allow-credentials"] == "true"
        assert _cors(answer)["access-control-allow-origin"] == PAGE


async def test_without_a_policy_the_backends_holds_for_what_is_passed_on_and_promises_nothing_of_ours(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(upstream=backend.url)
    for what, answer in await _every_answer(gateway, FROM_PAGE):
        if "/chat/completions" in what or what == "GET /nothing":
            assert _cors(answer)["access-control-allow-origin"] == "https://of.backend", what
            assert answer.headers["vary"] == "Accept-Encoding"
        else:
            assert _cors(answer) == {}, what
    for path, is_ours in (
        ("/responses", True),
        ("/responses/resp_1", True),
        ("/responses/resp_1/cancel", True),
        ("/responses/compact", False),
        ("/chat/completions", False),
        ("/models", False),
    ):
        asked = await gateway.call("OPTIONS", path, more=ASKS_FIRST)
        assert asked.status == 200
        assert asked.headers["x-of-backend"] == "yes"
        assert (_cors(asked) == {}) is is_ours, path
    assert backend.asked[-1].headers["Origin"] == PAGE


async def test_what_is_refused_before_it_is_looked_at_says_so_to_the_page(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(upstream=backend.url, BACKBURNER_SERVER__CORS_ORIGINS=PAGE)
    host, _, port = gateway.url.removeprefix("http://").removesuffix("/v1").partition(":")
    for head, status in (
        (b"GET /v1//x HTTP/1.1\r\nHost: g\r\n", b"400"),
        (b"TRACE /v1/x HTTP/1.1\r\nHost: g\r\n", b"405"),
        (b"POST /v1/responses HTTP/1.1\r\nHost: g\r\nContent-Encoding: x\r\nContent-Length: 1\r\n", b"415"),
        (b"POST /v1/responses HTTP/1.1\r\nHost: g\r\nContent-Length: 99999999999\r\n", b"413"),
        (b"POST /v1/responses HTTP/1.1\r\nHost: g\r\nExpect: x\r\nContent-Length: 1\r\n", b"417"),
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head + b"Origin: https://ui.example\r\n\r\n")
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.split()[1] == status
        assert b"Access-Control-Allow-Origin: https://ui.example\r\n" in answer, answer
        writer.close()
