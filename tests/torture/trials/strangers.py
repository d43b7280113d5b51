"""Two tenants: nothing that one asks for tells it whether the other has anything at all."""

from __future__ import annotations

import asyncio
import re
import secrets
import statistics
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.acceptance.harness import Reply, within
from tests.acceptance.keyed import echo_of
from tests.torture.gateway import Gateway
from tests.torture.houses import HOUSES, OURS, Headers, House
from tests.torture.keyed import Keyed
from tests.torture.trial import Bench, trial

_ROUTES = [
    *(
        ("GET", ""),
        ("GET", "?stream=true"),
        ("GET", "?stream=true&starting_after=1"),
        ("GET", "?stream=perhaps"),
    ),
    *(("GET", "?include[]=message.output_text.logprobs"), ("GET", "/input_items"), ("HEAD", "")),
    *(("GET", "/input_items?limit=1&order=asc"), ("POST", "/cancel"), ("DELETE", "")),
]
_ODD_IDS = [
    *("0" * 32, "resp_1", "RESP_" + "0" * 48, "chatcmpl-0123", "msg_1", "req_" + "0" * 48, "%F0%9F%98%80"),
    *("resp_%27%20OR%201=1--", "resp_*", "resp_" + "z" * 48, "null", "00000000-0000-4000-8000-000000000000"),
]
_NOT_COMPARED = {"x-request-id", "date"}
_GAP_MAX = 0.05
_TRIES = 4
"""So many measurements at most: on a busy machine one may be off; a real difference is in all of them."""

_BODY = {"model": "tiny", "input": "A secret otter.", "background": True}


@trial(
    "T27",
    "tenant matrix: two tenants, every route by id, whatever the id is of",
    pass_mark="0 leaks; 404s identical but for request id and date; medians within 5 %",
    runs=len(HOUSES),
    short_runs=2,
    quick_runs=1,
    round_s=120,
)
async def tenant_matrix(bench: Bench) -> None:
    is_full = bench.runs >= len(HOUSES)
    async with Keyed() as keyed:
        for number in bench.rounds():
            house = HOUSES[number % len(HOUSES)]
            settings = house.settings(bench.directory)
            gateway = await bench.gateway(keyed.url, conversations__record_foreground=True, **settings)
            brief = await bench.gateway(keyed.url, background__retention_s=0.2, **settings)
            matrix = _Matrix(bench, house, gateway)
            mine = await matrix.make(keyed)
            mine["expired"] = await matrix.expired(brief)
            for what, response_id in mine.items():
                at = brief if what == "expired" else gateway
                await matrix.compare(at, what, response_id)
            for odd in _ODD_IDS:
                await matrix.look(odd)
            await matrix.share_no_key()
            await matrix.all_is_as_it_was(mine)
            await matrix.time_apart(mine["completed"], 5000 if is_full else 300)
            for one in (gateway, brief):
                await one.end()


@dataclass(slots=True)
class _Matrix:
    bench: Bench
    house: House
    gateway: Gateway

    @property
    def a(self) -> Headers:
        return self.house.headers("a")

    @property
    def b(self) -> Headers:
        return self.house.headers("b")

    async def make(self, keyed: Keyed) -> dict[str, str]:
        """Everything that A can have, by what it is."""
        ask = self.gateway
        made = {
            "running": await self._create(ask, metadata={"sleep": "60"}),
            "completed": await self._ended(ask, await self._create(ask)),
            "streamed": await self._ended(ask, await self._create_streamed(ask)),
            "cancelled": await self._create(ask, metadata={"sleep": "60"}),
            "deleted": await self._ended(ask, await self._create(ask)),
        }
        await ask.call("POST", f"/responses/{made['cancelled']}/cancel", key=None, more=self.a)
        await ask.call("DELETE", f"/responses/{made['deleted']}", key=None, more=self.a)
        plain = await ask.call("POST", "/responses", {**_BODY, "background": False}, key=None, more=self.a)
        made["recorded"] = plain.json()["id"]
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{keyed.url}/responses",
                json={**_BODY, "background": False},
                headers={"Authorization": f"Bearer {self.house.key('a')}"},
            ) as answer,
        ):
            made["the backend's own"] = str((await answer.json())["id"])
        return made

    async def expired(self, gateway: Gateway) -> str:
        """A response of A's that has expired."""
        response_id = await self._create(gateway)
        await gateway.log_of_end(_stored(response_id))
        async with asyncio.timeout(20):
            while (
                await gateway.call("GET", f"/responses/{response_id}", key=None, more=self.a)
            ).status == 200:
                await asyncio.sleep(0.05)
        return response_id

    async def _create(self, gateway: Gateway, **more: Any) -> str:
        answer = await gateway.call("POST", "/responses", {**_BODY, **more}, key=None, more=self.a)
        assert answer.status in (200, 202), answer.body
        found: str = answer.json()["id"]
        return found

    async def _create_streamed(self, gateway: Gateway) -> str:
        stream = await gateway.call("POST", "/responses", {**_BODY, "stream": True}, key=None, more=self.a)
        assert stream.status == 200, stream.body
        found: bytes = re.findall(rb'"id":"((?:resp|req)_[0-9a-f]{48})"', stream.body)[0]
        return found.decode()

    async def _ended(self, gateway: Gateway, response_id: str) -> str:
        await gateway.log_of_end(_stored(response_id))
        return response_id

    # -- what B gets

    async def compare(self, gateway: Gateway, what: str, response_id: str) -> None:
        """B asks for A's, and for one that never was: the answers may not differ."""
        is_gone = what in ("deleted", "expired")
        for headers, who in ((self.b, "B"), *(((self.a, "A"),) if is_gone else ())):
            for method, rest in _ROUTES:
                where = f"{self.house.name}: {who} asks {method} of {what}, {rest or 'itself'}"
                never = _never(response_id)
                theirs = await gateway.call(method, f"/responses/{response_id}{rest}", key=None, more=headers)
                nobodys = await gateway.call(method, f"/responses/{never}{rest}", key=None, more=headers)
                self._same(where, theirs, nobodys, response_id, never)
                if method != "HEAD":
                    self.bench.require(theirs.status == 404, f"{where}: {theirs.status}")
            for background in (True, False):
                body = {**_BODY, "background": background, "previous_response_id": "?"}
                never = _never(response_id)
                answers = []
                for named in (response_id, never):
                    body["previous_response_id"] = named
                    answers.append(await gateway.call("POST", "/responses", body, key=None, more=headers))
                where = f"{self.house.name}: {who} goes on from {what}, background {background}"
                self._same(where, answers[0], answers[1], response_id, never)
                self.bench.require(answers[0].status == 400, f"{where}: {answers[0].status}")
            sockets = [await _socket(gateway, one, headers) for one in (response_id, _never(response_id))]
            where = f"{self.house.name}: {who} opens a socket on {what}"
            self.bench.require(sockets[0] == sockets[1] != 101, f"{where}: {sockets}")

    async def look(self, odd: str) -> None:
        """An id that is none."""
        for method, rest in _ROUTES:
            answer = await self.gateway.call(method, f"/responses/{odd}{rest}", key=None, more=self.b)
            self.bench.require(answer.status in (400, 404), f"{method} {odd}{rest}: {answer.status}")
            self._leaks_nothing(f"{method} {odd}{rest}", answer)

    async def share_no_key(self) -> None:
        """One `Idempotency-Key` of two tenants is two keys."""
        made = []
        for headers in (self.a, self.b):
            more = {**headers, "Idempotency-Key": f"the-same-{self.house.name}"}
            made.append(
                (await self.gateway.call("POST", "/responses", _BODY, key=None, more=more)).json()["id"]
            )
        self.bench.require(made[0] != made[1], f"{self.house.name}: a key gave B what A made")
        await self._ended(self.gateway, made[1])
        seen = await self.gateway.call("GET", f"/responses/{made[1]}", key=None, more=self.b)
        self.bench.require(echo_of(self.house.key("b")).encode() in seen.body, f"not B's: {seen.body!r}")

    async def all_is_as_it_was(self, mine: dict[str, str]) -> None:
        """Nothing that B did has done anything to what A has."""
        for what, status in (
            ("running", "in_progress"),
            ("completed", "completed"),
            ("cancelled", "cancelled"),
        ):
            answer = await self.gateway.call("GET", f"/responses/{mine[what]}", key=None, more=self.a)
            found = answer.json().get("status")
            self.bench.require(found == status, f"{self.house.name}: A's {what} one is {found}")

    def _same(self, where: str, theirs: Reply, nobodys: Reply, response_id: str, never: str) -> None:
        self.bench.add("compared")
        shown = [
            (
                reply.status,
                {name: value for name, value in reply.headers.items() if name not in _NOT_COMPARED},
                reply.body.replace(named.encode(), b"ID"),
            )
            for reply, named in ((theirs, response_id), (nobodys, never))
        ]
        if not self.bench.require(shown[0] == shown[1], f"{where}: {shown[0]} is not {shown[1]}"):
            self.bench.add("differences")
        self._leaks_nothing(where, theirs)

    def _leaks_nothing(self, where: str, reply: Reply) -> None:
        canaries = [b"otter"]
        if self.house.passes_credentials:
            canaries.append(echo_of(self.house.key("a")).encode())
        else:
            canaries.append(echo_of(OURS).encode())
        for canary in canaries:
            self.bench.require(canary not in reply.body, f"{where}: B sees {canary!r}")

    # -- time

    async def time_apart(self, response_id: str, samples: int) -> None:
        """Whether it takes as long to say no to A's response as to one that never was."""
        self.bench.figure("samples", samples)
        for attempt in range(_TRIES):
            gap = await self._gap(response_id, samples)
            if gap <= _GAP_MAX or attempt == _TRIES - 1:
                break
        self.bench.most("largest gap of medians %", 100 * gap)
        self.bench.require(gap <= _GAP_MAX, f"{self.house.name}: the medians differ by {gap:.1%}")

    async def _gap(self, response_id: str, samples: int) -> float:
        host, _, port = (
            self.gateway.processes[0].url.removeprefix("http://").removesuffix("/v1").partition(":")
        )
        reader, writer = await asyncio.open_connection(host, int(port))
        head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": host, **self.b}.items())
        took: dict[str, list[float]] = {response_id: [], _never(response_id): []}
        order = list(took)
        for _ in range(samples):
            for named in order:
                started = time.perf_counter()
                writer.write(f"GET /v1/responses/{named} HTTP/1.1\r\n{head}\r\n".encode())
                answer = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", answer)
                assert length is not None, answer
                await reader.readexactly(int(length[1]))
                took[named].append(time.perf_counter() - started)
            order.reverse()
        writer.close()
        medians = [statistics.median(times) for times in took.values()]
        return abs(medians[0] - medians[1]) / min(medians)


def _never(response_id: str) -> str:
    """An id of the same shape that never was."""
    prefix, underscore, rest = response_id.rpartition("_")
    return f"{prefix}{underscore}{secrets.token_hex(len(rest))[: len(rest)]}"


def _stored(response_id: str) -> str:
    """As the log has it."""
    return response_id.replace("req_", "resp_")


async def _socket(gateway: Gateway, response_id: str, headers: Headers) -> int:
    url = gateway.url.replace("http:", "ws:")
    try:
        async with gateway.http.ws_connect(f"{url}/responses/{response_id}", headers=headers) as socket:
            await within(socket.close())
    except aiohttp.WSServerHandshakeError as error:
        return error.status
    return 101
