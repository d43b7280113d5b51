"""Text that means something to SQL, to a shell, to a template or to a log: here it is text."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any
from urllib.parse import quote

import aiohttp

from tests.acceptance.harness import Reply
from tests.torture.gateway import Gateway
from tests.torture.houses import HOUSES
from tests.torture.keyed import Keyed
from tests.torture.trial import Bench, trial

_STRINGS = r"""
' OR '1'='1
' OR 1=1 --
" OR ""="
') OR ('a'='a
'; DROP TABLE job; --
1; DELETE FROM job
' UNION SELECT sealed FROM secret --
'||(SELECT value FROM meta)||'
%' ESCAPE '
resp_%
resp_*
x' AND randomblob(100000000) --
'; ATTACH DATABASE '/tmp/x' AS x; --
' AND load_extension('x') --
:id
?1
$(touch /tmp/x)
`id`
; rm -rf /
| cat /etc/passwd
${jndi:ldap://x/a}
{{7*7}}
%s%s%s%n
{0.__class__}
../../etc/passwd
<script>alert(1)</script>
=cmd|' /C calc'!A0
NULL
-1
1e309
[object Object]
""".strip().splitlines()
_STRINGS += ["a" * 4000, "\u202e", "\U0001f600'--"]
_HEADERS = [
    *("Authorization", "api-key", "x-api-key", "Idempotency-Key", "User-Agent", "OpenAI-Organization"),
    *("OpenAI-Project", "OpenAI-Beta", "Accept-Language", "X-Request-Id", "Last-Event-ID", "X-Tenant"),
    *("X-Stainless-Retry-Count", "Origin", "Referer", "Cookie", "X-Forwarded-For", "Accept", "X-Custom"),
]
_FIELDS = ["model", "input", "instructions", "previous_response_id", "user", "service_tier"]
_ROUTES = [("GET", ""), ("GET", "?stream=true"), ("POST", "/cancel"), ("DELETE", ""), ("GET", "/input_items")]
_BODY = {"model": "tiny", "input": "Say something.", "background": True}


@trial(
    "T46",
    "SQL and command injection in every header, id, key, query and field",
    pass_mark="0 answers of 500, 0 effects: rows, schema and a neighbour's responses are as they were",
    runs=20,
    short_runs=1,
    round_s=120,
)
async def inject(bench: Bench) -> None:
    async with Keyed() as keyed:
        gateways = {}
        for name in ("passthrough", "static keys", "trusted header"):
            house = next(house for house in HOUSES if house.name == name)
            gateways[name] = await bench.gateway(
                keyed.url,
                **house.settings(bench.directory),
                background__queue_max=100_000,
                background__queue_per_tenant_max=100_000,
            )
        for number in bench.rounds():
            name, gateway = list(gateways.items())[number % len(gateways)]
            play = _Injection(
                bench, gateway, next(house for house in HOUSES if house.name == name).headers("a")
            )
            await play.everywhere()
        for gateway in gateways.values():
            await gateway.kill9()
            bench.require(gateway.damage() is None, "the file is damaged")


class _Injection:
    def __init__(self, bench: Bench, gateway: Gateway, own: dict[str, str]) -> None:
        self._bench = bench
        self._gateway = gateway
        self._own = own

    async def everywhere(self) -> None:
        neighbour = await self._neighbour()
        before = self._schema()
        for text in _STRINGS:
            for name in _HEADERS:
                await self._header(name, text)
            await self._id(text)
            await self._query(text)
            for field in _FIELDS:
                body = {**_BODY, field: text}
                await self._ask("POST", "/responses", body, f"{field}: {text}")
            pair = {"metadata": {text[:64]: text[:512]}, "tools": [{"type": text}], "include": [text]}
            await self._ask("POST", "/responses", {**_BODY, **pair}, f"pairs: {text}")
        after = self._schema()
        self._bench.require(after == before, f"the schema was {before} and is {after}")
        shown = await self._gateway.call("GET", f"/responses/{neighbour['id']}", key=None, more=self._own)
        self._bench.require(shown.body == neighbour["body"], "a neighbour's response has changed")

    async def _neighbour(self) -> dict[str, Any]:
        created = await self._ask("POST", "/responses", _BODY, "a neighbour")
        found = created.json()["id"]
        await self._gateway.log_of_end(found)
        shown = await self._gateway.call("GET", f"/responses/{found}", key=None, more=self._own)
        return {"id": found, "body": shown.body}

    async def _header(self, name: str, text: str) -> None:
        """On a create and on a read of what is not the tenant's, which must not become its own by it."""
        if not text.isascii():
            return
        more = {key: value for key, value in self._own.items() if key.lower() != name.lower()}
        if name in ("Authorization", "api-key", "x-api-key"):  # one credential, and this is it
            more = {key: value for key, value in more.items() if "auth" not in key.lower()}
        for method, path, body in (("POST", "/responses", _BODY), ("GET", "/responses/resp_1", None)):
            await self._ask(method, path, body, f"{name}: {text}", **{**more, name: text})

    async def _id(self, text: str) -> None:
        path = f"/responses/{quote(text, safe='')}"
        for method, rest in _ROUTES:
            answer = await self._ask(method, f"{path}{rest}", None, f"an id: {text}")
            self._bench.require(answer.status in (400, 404), f"{method} of the id {text!r}: {answer.status}")

    async def _query(self, text: str) -> None:
        value, path = quote(text, safe=""), f"/responses/resp_{'0' * 48}"
        for query in (f"stream={value}", f"starting_after={value}&stream=true", f"include[]={value}", value):
            await self._ask("GET", f"{path}?{query}", None, f"a query: {text}")
        for query in (f"limit={value}", f"after={value}", f"order={value}"):
            await self._ask("GET", f"{path}/input_items?{query}", None, f"a query: {text}")

    async def _ask(self, method: str, path: str, body: Any, what: str, **more: str) -> Reply:
        self._bench.add("requests")
        headers = more or self._own
        try:
            answer = await self._gateway.call(method, path, body, key=None, more=headers)
        except (aiohttp.ClientError, ValueError) as error:  # nothing that a client could send
            return Reply(0, {}, repr(error).encode())
        if not self._bench.require(
            answer.status < 500, f"{what[:80]!r}: {answer.status} {answer.body[:99]!r}"
        ):
            self._bench.add("failures")
        return answer

    def _schema(self) -> Any:
        with closing(sqlite3.connect(f"file:{self._gateway.database}?mode=ro", uri=True)) as raw:
            names = [row[0] for row in raw.execute("SELECT sql FROM sqlite_schema ORDER BY name")]
            return names, raw.execute("SELECT * FROM meta ORDER BY key").fetchall()
