"""Who is not let in gets nothing, on any path: no answer of the backend's, and no row."""

from __future__ import annotations

import secrets
from typing import Any

import aiohttp

from tests.acceptance.tokens import bad_tokens
from tests.torture.gateway import Gateway
from tests.torture.houses import OURS, Headers, key_of, with_static_keys, with_tokens
from tests.torture.keyed import Keyed
from tests.torture.trial import Bench, trial

_BODY = {"model": "tiny", "input": "Let me in."}
_NEVER = "resp_" + "0" * 48
_PATHS: list[tuple[str, str, Any]] = [
    ("POST", "/responses", {**_BODY, "background": True}),
    ("POST", "/responses", {**_BODY, "background": True, "stream": True}),
    ("POST", "/responses", _BODY),
    ("POST", "/chat/completions", {"model": "tiny", "messages": []}),
    ("GET", "/models", None),
    ("GET", "/files", None),
    ("POST", "/files", b"bytes"),
    ("GET", f"/responses/{_NEVER}", None),
    ("GET", f"/responses/{_NEVER}?stream=true", None),
    ("GET", f"/responses/{_NEVER}/input_items", None),
    ("POST", f"/responses/{_NEVER}/cancel", None),
    ("DELETE", f"/responses/{_NEVER}", None),
    ("POST", "/responses/compact", _BODY),
    ("OPTIONS", "/responses", None),
    ("PATCH", f"/responses/{_NEVER}", {"metadata": {}}),
]


@trial(
    "T45",
    "the door: forged, expired and misdirected tokens, headers from untrusted peers, keys that are none",
    pass_mark="401 on every path, 0 requests at the backend, 0 rows; a bogus key in passthrough: 401, 0 rows",
    runs=10,
    short_runs=1,
    round_s=60,
)
async def shut_the_door(bench: Bench) -> None:
    async with Keyed() as keyed:
        own: dict[str, Any] = {"upstream__api_key": OURS}
        trusted: dict[str, Any] = {"tenants__mode": "trusted_header", "tenants__header": "X-Tenant"}
        houses = {
            "tokens": await bench.gateway(keyed.url, **with_tokens(bench.directory), **own),
            "keys": await bench.gateway(keyed.url, **with_static_keys(bench.directory, "a"), **own),
            "far": await bench.gateway(keyed.url, **trusted, tenants__header_peers="10.0.0.0/8", **own),
            "near": await bench.gateway(keyed.url, **trusted, tenants__header_peers="127.0.0.1", **own),
        }
        through = await bench.gateway(keyed.url)
        for _ in bench.rounds():
            for name, gateway in houses.items():
                for what, headers in _strangers(name).items():
                    await _knock(bench, gateway, f"{name}, {what}", headers)
            await _try_bogus_keys(bench, through, keyed)
        told = await keyed.told()
        reached = {path: n for path, n in told["asked"].items() if path != "/v1/models"}
        bench.figure("reached the backend", sum(reached.values()))
        bench.require(not reached, f"the backend was asked {reached}")
        for gateway in (*houses.values(), through):
            await gateway.kill9()
            rows = gateway.look(lambda raw: raw.execute("SELECT count(*) FROM job").fetchone()[0])
            bench.add("rows", rows)
            bench.require(rows == 0, f"{rows} rows were written")


def _strangers(house: str) -> dict[str, Headers]:
    """What those bring who may not come in."""
    common = {
        "nothing": {},
        "some key": {"Authorization": f"Bearer {key_of('stranger')}"},
        "another scheme": {"Authorization": f"Basic {key_of('a')}"},
        "a cookie": {"Cookie": f"session={key_of('a')}"},
    }
    match house:
        case "tokens":
            return common | {
                f"{what} in {name}": {name: f"Bearer {token}" if name == "Authorization" else token}
                for what, token in bad_tokens().items()
                for name in ("Authorization", "x-api-key")
            }
        case "keys":
            return common | {
                "one more character": {"api-key": f"{key_of('a')}x"},
                "one less": {"api-key": key_of("a")[:-1]},
                "the tenant's name": {"api-key": "a"},
                "in capitals": {"api-key": key_of("a").upper()},
                "as a proxy's": {"Proxy-Authorization": f"Bearer {key_of('a')}"},
            }
        case "far":
            forwarded = {"X-Forwarded-For": "10.1.2.3", "Forwarded": "for=10.1.2.3", "X-Real-IP": "10.1.2.3"}
            return common | {"the header": {"X-Tenant": "a"}, "and a story": {"X-Tenant": "a", **forwarded}}
    twins = {"a twin": {"X_Tenant": "a"}, "another twin": {"X.Tenant": "a"}}
    return common | twins | {"an empty name": {"X-Tenant": ""}}


async def _knock(bench: Bench, gateway: Gateway, who: str, headers: Headers) -> None:
    for method, path, body in _PATHS:
        answer = await gateway.call(method, path, body, key=None, more=headers)
        bench.add("knocks")
        if not bench.require(answer.status == 401, f"{who}: {method} {path} {answer.status}"):
            bench.add("let in")
    for path in ("/realtime", "/responses", f"/responses/{_NEVER}"):
        try:
            async with gateway.http.ws_connect(gateway.url.replace("http:", "ws:") + path, headers=headers):
                bench.require(False, f"{who}: a socket was opened on {path}")
        except aiohttp.WSServerHandshakeError as error:
            bench.require(error.status == 401, f"{who}: a socket on {path} got {error.status}")


async def _try_bogus_keys(bench: Bench, gateway: Gateway, keyed: Keyed) -> None:
    await keyed.take(key_of("known"))
    for _ in range(20):
        key = f"sk-bogus-{secrets.token_hex(8)}"
        for body in (_PATHS[0][2], _PATHS[1][2]):
            answer = await gateway.call("POST", "/responses", body, key=key)
            bench.add("bogus keys")
            bench.require(answer.status == 401, f"a bogus key was answered {answer.status}")
    await keyed.take()


# -- for the guards: see T47


async def knock_without_a_key(bench: Bench) -> None:
    """Whoever has none of our keys is answered 401."""
    async with Keyed() as keyed:
        gateway = await bench.gateway(keyed.url, **with_static_keys(bench.directory, "a"))
        for _ in bench.rounds():
            for method, path, body in _PATHS:
                answer = await gateway.call(method, path, body, key=key_of("stranger"))
                bench.require(answer.status == 401, f"{method} {path} was answered {answer.status}")


async def ask_through_one_key(bench: Bench) -> None:
    """A response that the backend keeps is nobody's to ask for through the key that all callers share."""
    async with Keyed() as keyed:
        gateway = await bench.gateway(keyed.url, upstream__api_key=OURS)
        for _ in bench.rounds():
            theirs = (await gateway.call("POST", "/responses", _BODY, key=key_of("a"))).json()["id"]
            for method, path in (("GET", ""), ("HEAD", ""), ("GET", "/input_items"), ("DELETE", "")):
                answer = await gateway.call(method, f"/responses/{theirs}{path}", key=key_of("b"))
                bench.require(answer.status == 404, f"{method} {path} was answered {answer.status}")
            body = {**_BODY, "previous_response_id": theirs}
            answer = await gateway.call("POST", "/responses", body, key=key_of("b"))
            bench.require(answer.status == 400, f"it was gone on from: {answer.status}")
