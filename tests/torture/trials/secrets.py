"""A key, wherever a client or a model server may put one, is found in none of the places that others read."""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
from typing import Any

import aiohttp

from tests.acceptance.harness import Reply, within
from tests.acceptance.keyed import OF_BACKEND
from tests.torture.clients import until_ready
from tests.torture.gateway import Gateway
from tests.torture.houses import HOUSES, OURS, Headers, House, key_of
from tests.torture.keyed import Keyed
from tests.torture.trial import Bench, trial

_SEALING_KEY = "c2VhbGluZy1rZXktb2YtdGhlLXRyaWFsLTEyMzQ1Njc="
_SEALED = {"credentials__sealing_keys": f"now:{_SEALING_KEY}"}
_WAYS: list[tuple[House, dict[str, Any]]] = [
    (HOUSES[0], {}),
    (HOUSES[0], _SEALED),
    *((house, {}) for house in HOUSES[1:5]),
    (HOUSES[6], _SEALED),
]
_LOGS = [("debug", "json"), ("debug", "text"), ("info", "json"), ("warning", "text"), ("error", "json")]

_HEADERS = [
    *("X-Vendor-Key", "X-Auth-Token", "Cookie", "Proxy-Authorization", "X-Amz-Security-Token"),
    *("X-Goog-Api-Key", "Ocp-Apim-Subscription-Key", "X-Request-Id", "X-Forwarded-For", "Forwarded"),
    *("Via", "Referer", "Origin", "Last-Event-ID", "Idempotency-Key", "X-Stainless-Lang", "X-Custom"),
    *("From", "X-Stainless-Retry-Count"),
]
"""Left out are those that may lie on disk beside a job: User-Agent, Accept-Language and OpenAI's own."""

_AT_ONCE: dict[str, Any] = {
    "background__attempts_max": 1,
    "upstream__retry_after_times_max": 0,
    "upstream__breaker_percent": 100,
    "upstream__breaker_failures": 1000,
    "server__head_timeout_s": 1,
}
"""What a backend refuses fails now, and is not tried again."""

_BODY = {"model": "tiny", "input": "What is in the log?"}
_MARK = "5ec2e7"
_FOUND = re.compile(_MARK.encode() + b"[0-9a-f]*")
"""By these the search finds what was made up here, also in parts."""

_FAULTS = ("quote:401", "quote:400", "quote:429", "quote:500", "event", "redirect")


@trial(
    "T34",
    "secret scan: a key in every header, query, body and malformed head, in each mode and at each log level",
    pass_mark="0 hits in log, metrics and error bodies, and in the database's files at any time",
    runs=35,
    short_runs=2,
    quick_runs=2,
    round_s=60,
)
async def scan_for_secrets(bench: Bench) -> None:
    async with Keyed() as keyed:
        for number in bench.rounds():
            house, more = _WAYS[number % len(_WAYS)]
            level, form = _LOGS[number % len(_LOGS)]
            ports = [_free_port(), _free_port()]
            gateway = await bench.prepared(
                keyed.url,
                flags=("--port", str(ports[0]), "--admin-port", str(ports[1]), "--log-level", level),
                **{**house.settings(bench.directory), **more, **_AT_ONCE, "log__format": form},
            )
            scan = _Scan(bench, gateway, f"{house.name}{', sealed' if more else ''}, {level}, {form}", house)
            await gateway.spawn()  # at some levels it does not say that it listens
            gateway.url, gateway.admin = (f"http://127.0.0.1:{port}" for port in ports)
            gateway.url += "/v1"
            await until_ready(gateway)
            await scan.write_everywhere()
            await scan.look_everywhere()
            await gateway.kill9()
            scan.look_into_files("after kill -9")
            await gateway.end()


class _Scan:
    """One gateway, and what was written to it.

    Attributes:
        canaries: By what was written, where it was written: found anywhere, it tells how it came there.
        told: Answers that the gateway gave in its own words.
    """

    def __init__(self, bench: Bench, gateway: Gateway, where: str, house: House) -> None:
        self._bench = bench
        self._gateway = gateway
        self._where = where
        self._own = house.headers("a")
        self.canaries = {OURS: "the gateway's key", _SEALING_KEY: "the sealing key", key_of("a"): "a key"}
        for name, value in self._own.items():
            if len(value) > 20:
                self.canaries[value[-20:]] = f"the credential in {name}"
        self._fixed = list(self.canaries)
        self._prompt = secrets.token_hex(12)
        self._told: list[tuple[str, Reply]] = []

    def _canary(self, place: str) -> str:
        core = f"{_MARK}{secrets.token_hex(8)}"
        self.canaries[core] = place
        return f"sk-{core}"

    def _headers(self) -> Headers:
        return {name: self._canary(name) for name in _HEADERS} | {"X-Stainless-Retry-Count": "0"}

    async def _call(self, what: str, method: str, path: str, body: Any = None, **more: str) -> Reply:
        headers = {**self._headers(), **self._own, **more}
        self._bench.add("requests")
        try:
            answer = await self._gateway.call(method, path, body, key=None, more=headers)
        except aiohttp.ClientError:
            return Reply(0, {}, b"")  # broken off by the backend, and so by the gateway
        if OF_BACKEND.lower() not in answer.headers:
            self._told.append((what, answer))
        return answer

    # -- writing

    async def write_everywhere(self) -> None:
        background = {**_BODY, "background": True, "metadata": {"note": self._prompt}}
        await self._run(background)
        for fault in _FAULTS:
            await self._run({**background, "metadata": {"fault": fault}})
            await self._call(fault, "POST", "/responses", {**_BODY, "metadata": {"fault": fault}})
        for path in ("/responses/resp_x", "/responses/resp_x/input_items", "/files", "/echo/5?reset"):
            mark = "&" if "?" in path else "?"
            await self._call("query", "GET", f"{path}{mark}api_key={self._canary('query')}&stream=true")
            await self._call("bare query", "GET", f"{path}{mark}{self._canary('bare query')}")
        for query in (f"api_key={self._canary('query')}", self._canary("bare query")):
            await self._call("query of a create", "POST", f"/responses?{query}", background)
        await self._call("path", "GET", f"/files/{self._canary('path')}/content")
        for name in ("stream", "store", "temperature", "tools", "include", "truncation"):
            await self._call(
                f"body: {name}", "POST", "/responses", {**background, name: self._canary(f"body: {name}")}
            )
        for text in ('{"background": true, "input": "%s', '{"background": true, "%s" 1}', "%s"):
            body = (text % self._canary("broken JSON")).encode()
            await self._call("broken JSON", "POST", "/responses", body)
        wrong = {"Authorization": f"Bearer {self._canary('another key')}"}
        for headers in (wrong, {**wrong, "x-api-key": self._canary("a second key")}):
            answer = await self._gateway.call("POST", "/responses", background, key=None, more=headers)
            self._told.append(("another key", answer))
        await self._open_socket()
        for head in _malformed(self):
            await self._send_raw(head)

    async def _run(self, body: dict[str, Any]) -> None:
        """A background response, looked at while it runs and when it has ended."""
        slow = {**body, "metadata": {**body["metadata"], "sleep": "0.1"}}
        created = await self._call("create", "POST", "/responses", slow)
        if not self._bench.require(created.status in (200, 202), f"{self._where}: {created.body!r}"):
            return
        self.look_into_files("while it waits or runs")
        async with asyncio.timeout(20):
            while True:
                shown = await self._call("poll", "GET", f"/responses/{created.json()['id']}")
                if shown.json()["status"] not in ("queued", "in_progress"):
                    break
                await asyncio.sleep(0.05)

    async def _open_socket(self) -> None:
        offered = ("realtime", f"openai-insecure-api-key.{self._canary('a protocol')}")
        url = self._gateway.url.replace("http:", "ws:")
        for path in ("/realtime", "/responses"):
            try:
                headers = {**self._headers(), **self._own}
                async with self._gateway.http.ws_connect(url + path, headers=headers, protocols=offered):
                    pass
            except aiohttp.WSServerHandshakeError:
                pass

    async def _send_raw(self, head: bytes) -> None:
        host, _, port = self._gateway.url.removeprefix("http://").removesuffix("/v1").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head)
        try:
            answer = await within(reader.read(), 20)
        except ConnectionError:
            answer = b""
        writer.close()
        self._bench.add("requests")
        self._told.append((f"malformed: {head[:40]!r}", Reply(0, {}, answer)))

    # -- looking

    async def look_everywhere(self) -> None:
        self._bench.figure("places", len(self.canaries))
        for what, answer in self._told:
            self._search(f"the answer to {what}", answer.body, str(answer.headers).encode())
        for path in ("/metrics", "/readyz", "/healthz", "/openapi.json"):
            async with self._gateway.http.get(f"{self._gateway.admin}{path}") as page:
                self._search(path, await page.read())
        self.look_into_files("at the end")
        self._search("the log", self._gateway.database.with_name("gateway.log").read_bytes())
        found = self._prompt.encode() in self._files()
        self._bench.require(found, f"{self._where}: a prompt is not in the files: the search finds nothing")

    def look_into_files(self, when: str) -> None:
        """Prompts are kept, and with them what else stands in a body; nothing else is."""
        self._search(f"the files, {when}", self._files(), kept=("body", "broken JSON"))

    def _files(self) -> bytes:
        database = self._gateway.database
        return b"".join(path.read_bytes() for path in database.parent.glob(f"{database.name}*"))

    def _search(self, place: str, *texts: bytes, kept: tuple[str, ...] = ()) -> None:
        self._bench.add("searches")
        found = {core.decode() for text in texts for core in re.findall(_FOUND, text)}
        found |= {key for key in self._fixed if any(key.encode() in text for text in texts)}
        for hit in found:  # perhaps a part of one
            written = next((place for core, place in self.canaries.items() if core.startswith(hit)), hit)
            if not written.startswith(kept or ("-",)):
                self._bench.require(False, f"{self._where}: from {written} it came to {place}")
                self._bench.add("hits")


async def fail_with_a_quoted_key(bench: Bench) -> None:
    """For the guards, see T47: a backend that quotes the key which it refuses is not quoted."""
    async with Keyed() as keyed:
        gateway = await bench.gateway(keyed.url, **_AT_ONCE)
        for _ in bench.rounds():
            for fault in ("quote:400", "event"):
                body = {**_BODY, "background": True, "metadata": {"fault": fault}}
                created = await gateway.call("POST", "/responses", body, key=key_of("a"))
                ended = await gateway.log_of_end(created.json()["id"])
                shown = await gateway.call("GET", f"/responses/{ended['id']}", key=key_of("a"))
                files = b"".join(path.read_bytes() for path in gateway.database.parent.glob("gateway.db*"))
                for place, text in (("the error", shown.body), ("the files", files)):
                    bench.require(key_of("a").encode() not in text, f"{fault}: the key is in {place}")


def _malformed(scan: _Scan) -> list[bytes]:
    """Heads that no server should accept, each with a key in it."""

    def key(place: str) -> bytes:
        return scan._canary(f"a malformed head: {place}").encode()

    line, host = b"GET /v1/models HTTP/1.1\r\n", b"Host: x\r\n"
    end = b"Connection: close\r\n\r\n"
    return [
        line + host + b"Authorization : Bearer " + key("blank before the colon") + b"\r\n" + end,
        line + host + b" Authorization: Bearer " + key("folded") + b"\r\n" + end,
        line + host + b"Authorization\r\n Bearer " + key("no colon") + b"\r\n" + end,
        line + host + key("a name alone") + b"\r\n" + end,
        line + host + b"Authorization: Bearer " + key("NUL") + b"\x00\r\n" + end,
        line + host + b"Authorization: Bearer " + key("CR") + b"\rX: y\r\n" + end,
        line + host + b"Authorization: Bearer \xff" + key("not UTF-8") + b"\r\n" + end,
        line + b"Host: " + key("Host") + b"/?x=\r\n" + end,
        line + host + b"Content-Length: " + key("Content-Length") + b"\r\n" + end,
        line + host + b"Transfer-Encoding: " + key("Transfer-Encoding") + b"\r\n" + end,
        line + host + b"Connection: " + key("Connection") + b"\r\n" + end,
        line + host + b"Expect: " + key("Expect") + b"\r\n" + end,
        line + host + b"X-Long: " + b"x" * 9000 + key("too long") + b"\r\n" + end,
        key("the method") + b"-" * 20 + b" /v1/models HTTP/1.1\r\n" + host + end,  # too long for one
        b"GET /v1/%zz" + key("a bad escape") + b" HTTP/1.1\r\n" + host + end,
        b"GET /v1/../" + key("a dot segment") + b" HTTP/1.1\r\n" + host + end,
        b"GET http://evil/" + key("an absolute target") + b" HTTP/1.1\r\n" + host + end,
        b"GET /v1/models HTTP/9." + key("the version") + b"\r\n" + host + end,
        b"GET /v1/models?" + key("a query, cut") + b"\r\n\r\n",
        key("no HTTP at all") + b"\r\n\r\n",
        b"\x16\x03\x01" + key("TLS") + b"\r\n\r\n",
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
