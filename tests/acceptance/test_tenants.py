"""Who may come in, in each mode; what reaches the model server of those who do; and what is left on disk."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from openai import AuthenticationError

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import WAIT_S, Gateway, Reply, within
from tests.acceptance.keyed import KeyedServer, echo_of
from tests.acceptance.replay import ReplayServer
from tests.acceptance.tokens import AUDIENCE, ISSUER, bad_tokens, issuer, pem, token

GOOD: dict[str, Any] = {"model": "tiny", "input": "Count.", "background": True}
PLAIN: dict[str, Any] = {"model": "tiny", "input": "Count."}
OURS = "sk-of-the-gateway-456"
A, B = "sk-team-a-0123456789", "sk-team-b-0123456789"
EVERYWHERE = [
    ("POST", "/responses", GOOD),
    ("POST", "/responses", PLAIN),
    ("POST", "/chat/completions", {"model": "tiny", "messages": []}),
    ("GET", "/models", None),
    ("GET", "/models/tiny", None),
    ("GET", "/files", None),
    ("POST", "/files", b"bytes"),
    ("GET", "/responses/resp_" + "0" * 48, None),
    ("GET", "/responses/resp_" + "0" * 48 + "?stream=true", None),
    ("POST", "/responses/resp_" + "0" * 48 + "/cancel", None),
    ("DELETE", "/responses/resp_" + "0" * 48, None),
    ("GET", "/responses/resp_" + "0" * 48 + "/input_items", None),
    ("POST", "/responses/input_tokens", PLAIN),
    ("OPTIONS", "/responses", None),
    ("GET", "/../metrics", None),
]


@pytest.fixture
async def server() -> AsyncIterator[KeyedServer]:
    async with KeyedServer().running() as running:
        yield running


def rows(gateway: Gateway, table: str = "job") -> int:
    """How many there are in the file, while the gateway has it open."""
    with sqlite3.connect(f"file:{gateway.database}?mode=ro", uri=True) as connection:
        found: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    connection.close()
    return found


async def done(gateway: Gateway, key: str | None, **more: Any) -> dict[str, Any]:
    """A background response at its end."""
    created = await gateway.call("POST", "/responses", GOOD, key=key, **more)
    assert created.status == 200, created.body
    response_id = created.json()["id"]
    await gateway.log_of_end(response_id)
    found: dict[str, Any] = (await gateway.call("GET", f"/responses/{response_id}", key=key, **more)).json()
    return found


def text_of(response: dict[str, Any]) -> str:
    found: str = response["output"][0]["content"][0]["text"]
    return found


async def open_socket(gateway: Gateway, path: str, headers: dict[str, str], *protocols: str) -> int:
    """The status of a WebSocket handshake; 101 if it was opened."""
    url = gateway.url.replace("http:", "ws:") + path
    try:
        async with gateway.http.ws_connect(url, headers=headers, protocols=protocols) as socket:
            await socket.send_str("hello")
            assert (await within(socket.receive_str())).endswith(" hello")
    except aiohttp.WSServerHandshakeError as error:
        return error.status
    return 101


async def is_shut(gateway: Gateway, server: KeyedServer, headers: dict[str, str]) -> None:
    """Nothing is answered but 401, nothing reaches the model server, nothing is stored."""
    before = len(server.seen)
    for method, path, body in EVERYWHERE:
        answer = await gateway.call(method, path, body, key=None, more=headers)
        assert answer.status == 401, (method, path, answer.body)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.error["type"] == "invalid_request_error"
        assert answer.error["code"] in ("invalid_api_key", "token_expired")
        for value in headers.values():
            assert value.removeprefix("Bearer ").encode() not in answer.body or len(value) < 12
    for path in ("/realtime", "/responses"):
        assert await open_socket(gateway, path, headers) == 401
    assert len(server.seen) == before
    assert rows(gateway) == 0


# static_keys


async def test_static_keys_let_their_tenants_in_and_nobody_else(
    start_gateway: StartGateway, server: KeyedServer, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(
        f"# made by hand\n{hashlib.sha256(A.encode()).hexdigest()} team-a\n"
        f"{hashlib.sha256(b'sk-second-of-a').hexdigest().upper()}  team-a  # to be its only one\n"
        f"{hashlib.sha256(B.encode()).hexdigest()} team-b\n"
    )
    file.chmod(0o600)
    server.keys = {OURS}
    gateway = await start_gateway(
        upstream=server.url,
        BACKBURNER_TENANTS__MODE="static_keys",
        BACKBURNER_TENANTS__KEYS_FILE=file,
        BACKBURNER_UPSTREAM__API_KEY=OURS,
    )
    for wrong in (
        {},
        {"Authorization": "Bearer sk-wrong"},
        {"Authorization": f"Basic {A}"},
        {"Authorization": A},
        {"Authorization": "Bearer "},
        {"api-key": A + "x"},
        {"x-api-key": hashlib.sha256(A.encode()).hexdigest()},
        {"X-Tenant": "team-a"},
    ):
        await is_shut(gateway, server, wrong)
    with pytest.raises(AuthenticationError):
        await gateway.client("sk-wrong").models.list()
    mine = await done(gateway, A)
    assert text_of(mine) == echo_of(OURS)
    path = f"/responses/{mine['id']}"
    for headers in ({"api-key": A}, {"x-api-key": A}, {"Authorization": "bearer sk-second-of-a"}):
        assert (await gateway.call("GET", path, key=None, more=headers)).status == 200
    theirs = await gateway.call("GET", path, key=B)
    nobodys = await gateway.call("GET", path[:-4] + "0000", key=B)
    assert theirs.status == nobodys.status == 404
    for method, path, body in EVERYWHERE:
        assert (await gateway.call(method, path, body, key=B)).status != 401, path
    assert await open_socket(gateway, "/realtime", {"api-key": A}, "realtime") == 101
    for _, _, headers in server.seen:
        assert headers["authorization"] == f"Bearer {OURS}"
        assert not headers.keys() & {"api-key", "x-api-key"}
        assert not any(key in str(headers) for key in (A, B, "sk-second-of-a"))


async def test_without_a_key_of_the_gateways_the_callers_are_still_not_passed_on(
    start_gateway: StartGateway, server: KeyedServer, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    digest = hashlib.sha256(A.encode()).hexdigest()
    config.write_text(f"tenants: {{mode: static_keys, keys: {{{digest}: team-a}}}}\n")
    gateway = await start_gateway("--config", str(config), upstream=server.url)
    assert text_of(await done(gateway, A)) == echo_of("")
    await gateway.call("POST", "/responses", PLAIN, key=A)
    offered = ("realtime", f"openai-insecure-api-key.{A}")
    assert await open_socket(gateway, "/realtime", {"x-api-key": A}, *offered) == 101
    assert A not in str(server.seen)


# jwt


async def test_tokens_of_the_issuer_let_their_subjects_in_and_nobody_else(
    start_gateway: StartGateway, server: KeyedServer, tmp_path: Path
) -> None:
    file = tmp_path / "issuer.pem"
    file.write_bytes(pem(issuer()))
    gateway = await start_gateway(
        upstream=server.url,
        BACKBURNER_TENANTS__MODE="jwt",
        BACKBURNER_TENANTS__JWT_KEYS_FILE=file,
        BACKBURNER_TENANTS__JWT_ISSUER=ISSUER,
        BACKBURNER_TENANTS__JWT_AUDIENCE=AUDIENCE,
        BACKBURNER_TENANTS__JWT_LEEWAY_S="5",
        BACKBURNER_UPSTREAM__API_KEY=OURS,
    )

    bad = bad_tokens()
    for forged in bad.values():
        await is_shut(gateway, server, {"Authorization": f"Bearer {forged}"})
    expired = await gateway.call("GET", "/models", key=bad["expired"])
    assert expired.error["code"] == "token_expired"
    alice = await done(gateway, token())
    path = f"/responses/{alice['id']}"
    assert (await gateway.call("GET", path, key=token(exp=int(time.time()) + 900))).status == 200
    assert (await gateway.call("GET", path, key=token(aud=["x", AUDIENCE]))).status == 200
    for other in ("bob", "alice\0", "Alice", ISSUER):
        assert (await gateway.call("GET", path, key=token(sub=other))).status == 404
    assert {headers["authorization"] for *_, headers in server.seen} == {f"Bearer {OURS}"}


async def test_keys_of_a_set_are_found_by_their_ids_and_verify_what_their_kind_can(
    start_gateway: StartGateway, server: KeyedServer, tmp_path: Path
) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    algorithms = jwt.get_algorithm_by_name
    old = orjson.loads(algorithms("RS256").to_jwk(issuer().public_key()))
    new = orjson.loads(algorithms("ES256").to_jwk(curve.public_key()))
    file = tmp_path / "jwks.json"
    file.write_bytes(orjson.dumps({"keys": [{**old, "kid": "old"}, {**new, "kid": "new", "alg": "ES256"}]}))
    gateway = await start_gateway(
        upstream=server.url,
        BACKBURNER_TENANTS__MODE="jwt",
        BACKBURNER_TENANTS__JWT_KEYS_FILE=file,
        BACKBURNER_TENANTS__JWT_ALGORITHMS="RS256,ES256",
        BACKBURNER_TENANTS__JWT_ISSUER=ISSUER,
        BACKBURNER_TENANTS__JWT_AUDIENCE=AUDIENCE,
    )
    for key, algorithm, kid, status in (
        (issuer(), "RS256", "old", 200),
        (issuer(), "RS256", None, 200),
        (curve, "ES256", "new", 200),
        (curve, "ES256", "old", 401),
        (issuer(), "RS256", "new", 401),
        (issuer(), "RS256", "unknown", 401),
    ):
        signed = token(key, algorithm, {"kid": kid} if kid else None)
        assert (await gateway.call("GET", "/models", key=signed)).status == status, (algorithm, kid)


# trusted_header


async def test_a_header_is_believed_from_the_listed_peers_only(
    start_gateway: StartGateway, server: KeyedServer
) -> None:
    settings = {
        "BACKBURNER_TENANTS__MODE": "trusted_header",
        "BACKBURNER_TENANTS__HEADER": "X-Tenant",
        "BACKBURNER_UPSTREAM__API_KEY": OURS,
    }
    far = await start_gateway(
        upstream=server.url, BACKBURNER_TENANTS__HEADER_PEERS="10.0.0.0/8,::1", **settings
    )
    await is_shut(far, server, {"X-Tenant": "team-a"})
    await is_shut(far, server, {"X-Tenant": "team-a", "X-Forwarded-For": "10.0.0.1", "X-Real-IP": "10.0.0.1"})
    gateway = await start_gateway(
        upstream=server.url, BACKBURNER_TENANTS__HEADER_PEERS="10.0.0.0/8,127.0.0.1", **settings
    )
    for wrong in ({}, {"X_Tenant": "team-a"}, {"X-Tenant": ""}, {"X-Tenant": "t" * 257}):
        await is_shut(gateway, server, wrong)
    async with gateway.http.get(
        f"{gateway.url}/models", headers=[("X-Tenant", "team-a"), ("X-Tenant", "team-b")]
    ) as twice:
        assert twice.status == 401
    mine = await done(gateway, A, more={"X-Tenant": "team-a"})
    assert text_of(mine) == echo_of(OURS)
    path = f"/responses/{mine['id']}"
    assert (await gateway.call("GET", path, key=B, more={"X-Tenant": "team-a"})).status == 200
    assert (await gateway.call("GET", path, key=A, more={"X-Tenant": "team-b"})).status == 404
    await gateway.call("POST", "/responses", PLAIN, key=A, more={"X-Tenant": "team-a"})
    assert await open_socket(gateway, "/realtime", {"X-Tenant": "team-a"}, "realtime") == 101
    for *_, headers in server.seen:
        assert "x-tenant" not in headers
        assert headers["authorization"] == f"Bearer {OURS}"


# none


async def test_in_mode_none_all_callers_are_one_and_their_credentials_pass(
    start_gateway: StartGateway, server: KeyedServer
) -> None:
    gateway = await start_gateway(upstream=server.url, BACKBURNER_TENANTS__MODE="none")
    mine = await done(gateway, A)
    assert text_of(mine) == echo_of(A)
    for key in (A, B, None):
        assert (await gateway.call("GET", f"/responses/{mine['id']}", key=key)).status == 200


# passthrough: a credential is tried before anything is stored for it


async def test_a_credential_that_the_model_server_refuses_gets_its_status_and_no_row(
    start_gateway: StartGateway, server: KeyedServer
) -> None:
    server.keys = {A}
    gateway = await start_gateway(upstream=server.url)
    for key in ("sk-bogus-1", "sk-bogus-2", None):
        for more in ({}, {"stream": True}, {"previous_response_id": "resp_x"}):
            refused = await gateway.call("POST", "/responses", {**GOOD, **more}, key=key)
            assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
            assert refused.headers["content-type"] == "application/json"
    with pytest.raises(AuthenticationError):
        await gateway.client("sk-bogus-3").responses.create(**GOOD)
    assert server.asked == {"/v1/models": 4}  # once for each: the answer is remembered
    server.status = 403
    forbidden = await gateway.call("POST", "/responses", GOOD, key="sk-bogus-4")
    assert (forbidden.status, forbidden.error["code"]) == (403, "permission_denied")
    assert rows(gateway) == 0
    server.status = None
    assert text_of(await done(gateway, A)) == echo_of(A)


async def test_a_model_server_that_shows_its_models_to_anybody_is_asked_for_more(
    start_gateway: StartGateway, server: KeyedServer
) -> None:
    server.keys, server.shows_models = {A}, True
    gateway = await start_gateway(upstream=server.url)
    for key in ("sk-bogus-1", "sk-bogus-2", None):
        refused = await gateway.call("POST", "/responses", GOOD, key=key)
        assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
    assert rows(gateway) == 0
    for _ in range(3):
        assert text_of(await done(gateway, A)) == echo_of(A)
    assert server.asked["/v1/responses/resp_" + "0" * 48] == 4  # once for each
    assert server.asked["/v1/responses"] == 3


async def test_one_question_serves_all_who_wait_and_those_who_come_within_a_minute(
    start_gateway: StartGateway, server: KeyedServer
) -> None:
    server.keys = {A, B}
    gateway = await start_gateway(upstream=server.url)
    server.gate.clear()
    first = asyncio.create_task(gateway.call("POST", "/responses", GOOD, key=A))
    async with asyncio.timeout(WAIT_S):
        while not server.asked["/v1/models"]:
            await asyncio.sleep(0.01)
    crowd = [asyncio.create_task(gateway.call("POST", "/responses", GOOD, key=A)) for _ in range(20)]
    await asyncio.sleep(0.1)
    first.cancel()  # whoever asked first hangs up; the others still want to know
    await asyncio.gather(first, return_exceptions=True)
    server.gate.set()
    assert {answer.status for answer in await within(asyncio.gather(*crowd))} == {200}
    for _ in range(5):
        await done(gateway, A)
    assert server.asked["/v1/models"] == 1
    await done(gateway, B)
    assert server.asked["/v1/models"] == 2


async def test_a_model_server_that_does_not_say_refuses_nobody(
    start_gateway: StartGateway, server: KeyedServer
) -> None:
    gateway = await start_gateway(upstream=server.url)
    for status in (404, 429, 500, 503, 302):
        server.status = status
        assert (await gateway.call("POST", "/responses", GOOD, key=f"sk-{status}")).status == 200
    away = await start_gateway(
        upstream="http://127.0.0.1:9/v1", BACKBURNER_UPSTREAM__CONNECT_ATTEMPTS_MAX="1"
    )
    assert (await away.call("POST", "/responses", GOOD, key=A)).status == 200


async def test_a_credential_is_not_tried_where_it_is_not_used_or_not_to_be_tried(
    start_gateway: StartGateway, server: KeyedServer
) -> None:
    for settings in (
        {"BACKBURNER_UPSTREAM__API_KEY": OURS},
        {"BACKBURNER_UPSTREAM__CHECK_CREDENTIALS": "false"},
        {"BACKBURNER_TENANTS__MODE": "none"},
    ):
        gateway = await start_gateway(upstream=server.url, **settings)
        await done(gateway, A)
    assert server.asked["/v1/models"] == 0


async def test_a_refusal_is_forgotten_soon_and_an_acceptance_later(
    start_gateway: StartGateway, server: KeyedServer
) -> None:
    server.keys = {B}
    gateway = await start_gateway(
        upstream=server.url,
        BACKBURNER_TENANTS__CHECKED_REFUSED_S="0.2",
        BACKBURNER_TENANTS__CHECKED_OK_S="0.4",
    )

    async def create(key: str) -> Reply:
        return await gateway.call("POST", "/responses", GOOD, key=key)

    assert (await create(A)).status == 401
    server.keys = {A}
    async with asyncio.timeout(WAIT_S):
        while (await create(A)).status == 401:
            await asyncio.sleep(0.05)
    server.keys = {B}
    async with asyncio.timeout(WAIT_S):
        while (await create(A)).status == 200:
            await asyncio.sleep(0.05)


# Keys of the gateway's own: nobody reads another's response through it


async def test_through_a_shared_key_nobody_reaches_a_response_of_the_model_servers_own(
    start_gateway: StartGateway, server: KeyedServer, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    hashes = {hashlib.sha256(key.encode()).hexdigest(): key[3:9] for key in (A, B)}
    ways: list[dict[str, Any]] = [
        {"upstream": {"url": server.url, "api_key": OURS}},
        {"upstream": {"url": server.url, "headers": {"Authorization": f"Bearer {OURS}"}}},
        {
            "upstream": {"url": server.url, "api_key": OURS},
            "tenants": {"mode": "static_keys", "keys": hashes},
        },
    ]
    for way in ways:
        config.write_bytes(orjson.dumps(way))
        gateway = await start_gateway("--config", str(config), upstream=server.url)
        theirs = (await gateway.call("POST", "/responses", PLAIN, key=A)).json()["id"]
        assert server.kept[theirs] == OURS
        before = len(server.seen)
        await _nobody_reaches(gateway, theirs)
        reached = [what for what in list(server.seen)[before:] if what[1] != "/v1/models"]
        assert reached == []


async def _nobody_reaches(gateway: Gateway, theirs: str) -> None:
    one = f"/responses/{theirs}"
    paths = [
        *(("GET", one), ("HEAD", one), ("DELETE", one), ("POST", one), ("PUT", one), ("GET", one + "/")),
        *(("GET", one + "?stream=true"), ("GET", one + "/input_items"), ("GET", one + "/input_items/")),
        *(("POST", one + "/cancel"), ("POST", one + "/cancel/"), ("GET", one + "/more")),
        *(
            ("GET", f"/responses//{theirs}"),
            ("GET", f"//responses/{theirs}"),
            ("GET", f"/Responses/{theirs}"),
        ),
        *(("GET", f"/%72esponses/{theirs}"), ("GET", f"/responses%2F{theirs}"), ("GET", "/responses")),
        *(("GET", f"/models/../responses/{theirs}"), ("GET", f"/./responses/{theirs}")),
        *(("POST", "/responses/"), ("GET", f"/responses;x/{theirs}"), ("GET", f"/../responses/{theirs}")),
    ]
    for key in (A, B):
        for method, path in paths:
            answer = await raw(gateway, method, path, key)
            assert answer.split(b" ", 2)[1] in (b"400", b"404"), (method, path, answer)
            assert echo_of(OURS).encode() not in answer
        named = orjson.dumps({**PLAIN, "previous_response_id": theirs})
        escaped = named.replace(b"previous", rb"\u0070revious")
        twice = named[:-1] + b',"previous_response_id":null}'
        bodies = {
            *(named, escaped, twice, b"\xef\xbb\xbf" + named, named.decode().encode("utf-16")),
            *(named.decode().encode("utf-16-le"), named.replace(b"}", b",}"), named[:-1] + b',"a":NaN}'),
            orjson.dumps({**GOOD, "previous_response_id": theirs}),
        }
        for body in bodies:
            for path in ("/responses", "/responses/input_tokens", "/responses/compact"):
                refused = await gateway.call("POST", path, body, key=key)
                assert refused.status == 400, (path, body, refused.body)
        for path in ("/responses", "/responses/compact"):
            for coding, status in (("gzip", 400), ("unknown", 415)):
                packed = gzip.compress(named)
                zipped = await gateway.call("POST", path, packed, key=key, more={"Content-Encoding": coding})
                assert zipped.status == status
        for path, status in (("/responses", 426), (one, 404), ("/responses/x", 404), ("/Responses", 404)):
            assert await open_socket(gateway, path, {"Authorization": f"Bearer {key}"}) == status


async def raw(gateway: Gateway, method: str, path: str, key: str) -> bytes:
    """The answer to a request whose path no client library has touched."""
    host, _, port = gateway.url.removeprefix("http://").removesuffix("/v1").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"{method} /v1{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
        "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
    )
    answer = await within(reader.read())
    writer.close()
    return answer


async def test_what_computes_without_a_stored_response_passes_through_a_shared_key(
    start_gateway: StartGateway, server: KeyedServer
) -> None:
    gateway = await start_gateway(upstream=server.url, BACKBURNER_UPSTREAM__API_KEY=OURS)
    harmless = {**PLAIN, "input": 'Say "previous_response_id" in \\u0041SCII.', "previous_response_id": None}
    assert (await gateway.call("POST", "/responses", harmless)).status == 200
    assert (await gateway.call("POST", "/responses", {**PLAIN, "input": "\x7f\\u00e9"})).status == 200
    for path in ("/responses/input_tokens", "/responses/compact", "/embeddings"):
        assert (await gateway.call("POST", path, harmless)).json()["of"] == echo_of(OURS)
    first = await done(gateway, A)
    chained = await gateway.call("POST", "/responses", {**PLAIN, "previous_response_id": first["id"]}, key=A)
    assert (chained.status, chained.json()["previous_response_id"]) == (200, first["id"])


async def test_a_header_that_is_a_key_stands_alone(
    start_gateway: StartGateway, server: KeyedServer, tmp_path: Path
) -> None:
    """With the caller's beside it, there would be two, and the server's choice."""
    config = tmp_path / "config.yaml"
    config.write_bytes(orjson.dumps({"upstream": {"url": server.url, "headers": {"X-API-Key": OURS}}}))
    gateway = await start_gateway("--config", str(config), upstream=server.url)
    assert text_of(await done(gateway, A)) == echo_of(OURS)
    await gateway.call("POST", "/responses", PLAIN, key=A)
    assert await open_socket(gateway, "/realtime", {"Authorization": f"Bearer {A}"}, "realtime") == 101
    for *_, headers in server.seen:
        assert (headers.get("authorization"), headers["x-api-key"]) == (None, OURS)


async def test_a_credential_that_is_not_text_is_refused(gateway: Gateway) -> None:
    host, _, port = gateway.url.removeprefix("http://").removesuffix("/v1").partition(":")
    for path in (b"/v1/responses", b"/v1/responses/resp_x"):
        reader, writer = await asyncio.open_connection(host, int(port))
        body = orjson.dumps(GOOD)
        writer.write(
            b"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%s"
            % (path + (b"/cancel" if path[-1:] == b"x" else b""), len(body), body)
        )
        answer = await within(reader.read())
        writer.close()
        assert answer.startswith(b"HTTP/1.1 401 "), answer


# Prefix caches kept apart


SALTED = """
backends:
  apart: {url: "%(url)s", models: ["a-*"], rename: {a-2: tiny}, api: %(api)s, cache_salt: true}
  shared: {url: "%(url)s", models: ["b-*"], api: %(api)s}
"""
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Count."}]}
PROMPTS: list[tuple[str, dict[str, Any]]] = [
    ("/responses", {"input": "Count.", "background": True}),
    ("/responses", {"input": "Count."}),
    ("/responses", {"input": "Count.", "stream": True}),
    ("/chat/completions", CHAT),
    ("/completions", {"prompt": "Count."}),
]


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_each_tenant_has_a_cache_salt_of_its_own(
    start_gateway: StartGateway, replay_server: ReplayServer, tmp_path: Path, api: str
) -> None:
    """Of the backend that is to have it, by whichever way a prompt comes there; also after a restart."""
    config = tmp_path / "config.yaml"
    config.write_text(SALTED % {"url": replay_server.url, "api": api})
    gateway = await start_gateway("--config", str(config), upstream="")

    async def sent(key: str, path: str, body: dict[str, Any], **more: Any) -> dict[str, Any]:
        before = len(replay_server.creates)
        await gateway.call("POST", path, {**body, **more}, key=key)
        found: dict[str, Any] = (await replay_server.create(before)).json()
        return found

    async def salts_of(key: str, **more: Any) -> set[str]:
        return {(await sent(key, *prompt, model="a-1", **more))["cache_salt"] for prompt in PROMPTS}

    (of_a,), (of_b,) = await salts_of(A), await salts_of(B)
    (chosen,), (chosen_by_b,) = await salts_of(A, cache_salt="theirs"), await salts_of(B, cache_salt="theirs")
    salts = {of_a, of_b, chosen, chosen_by_b}
    assert len(salts) == 4
    assert all(re.fullmatch("[0-9a-f]{64}", salt) for salt in salts)
    renamed = await sent(A, *PROMPTS[3], model="a-2")
    assert (renamed["model"], renamed["cache_salt"]) == ("tiny", of_a)
    for prompt in PROMPTS:
        assert "cache_salt" not in await sent(A, *prompt, model="b-1")
    assert "cache_salt" not in await sent(A, "/embeddings", {"input": "Count."}, model="a-1")
    await gateway.kill9()
    await gateway.start()
    assert await salts_of(A) == {of_a}
    for salt in salts:
        assert salt.encode() not in gateway.database.read_bytes() + bytes(gateway.stderr)


async def test_a_salt_is_all_that_is_added_to_a_plain_body(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    body = b'{"model": "tiny", "seed": 2.50, "prompt": "\\u00e9" }'
    for salts in ("true", "false"):
        gateway = await start_gateway(BACKBURNER_UPSTREAM__CACHE_SALT=salts)
        for path in ("/responses", "/chat/completions", "/completions", "/embeddings", "/completions/x"):
            await gateway.call("POST", path, body, key=A)
            sent = replay_server.creates[-1].body
            if salts == "true" and path.endswith(("/responses", "/completions")):
                assert re.fullmatch(re.escape(body[:-2]) + b',"cache_salt":"[0-9a-f]{64}"}', sent), path
            else:
                assert sent == body, path


async def test_a_prompt_that_is_to_get_a_salt_is_as_large_as_a_response_may_be(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(
        BACKBURNER_UPSTREAM__CACHE_SALT="true",
        BACKBURNER_SERVER__BODY_BYTES_MAX="65536",
        BACKBURNER_BACKGROUND__BODY_BYTES_MAX="65536",
    )
    body = b'{"prompt": "%b"}' % (b"x" * 65536)
    assert (await gateway.call("POST", "/completions", body, key=A)).status == 413
    twice = b'{"cache_salt": "x", "prompt": NaN}'
    refused = await gateway.call("POST", "/completions", twice, key=A)
    assert (refused.status, refused.error["param"]) == (400, "cache_salt")
    assert not replay_server.creates
