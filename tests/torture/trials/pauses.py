"""A gateway that is stopped for longer than all of its timeouts: what lies in its sockets is read first."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import Any

import aiohttp
import orjson

from tests.acceptance.harness import frames, payload
from tests.torture.gateway import HEADERS, Gateway
from tests.torture.model import Model, create_body, expected_text
from tests.torture.trial import Bench, trial

_TIMEOUT_S = 2
_DEADLINE_S = 4
_PAUSE_S = (4.5, 6.0)
_EACH = 4
_DELTAS = 20
_SCRIPTS: dict[str, dict[str, Any]] = {
    "in the middle": {"pace_ms": 60},
    "head": {"head_ms": 1200, "pace_ms": 5},
    "first event": {"first_ms": 1200, "pace_ms": 5},
}
"""What the gateway waits for when it is stopped: each takes some 1.2 s in all."""
_ENDED_S = 20


@trial(
    "T49",
    f"SIGSTOP for {_PAUSE_S[0]:g} to {_PAUSE_S[1]:g} s, then SIGCONT, while the model server ends its "
    f"answers: idle, head, body and check timeouts of {_TIMEOUT_S} s and a deadline of {_DEADLINE_S} s pass "
    "meanwhile, for streamed, polled, plain and uploading requests",
    pass_mark="every answer is complete, by one call each; 0 failures counted, no replica down",
    runs=20,
    short_runs=3,
    quick_runs=1,
)
async def pause(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.gateway(
        model.url,
        upstream__idle_timeout_s=_TIMEOUT_S,
        upstream__head_timeout_s=_TIMEOUT_S,
        upstream__plain_head_timeout_s=_TIMEOUT_S,
        upstream__lookup_timeout_s=_TIMEOUT_S,
        upstream__connect_timeout_s=_TIMEOUT_S,
        upstream__health_interval_s=0.2,
        server__head_timeout_s=_TIMEOUT_S,
        server__body_idle_timeout_s=_TIMEOUT_S,
        server__body_timeout_s=_DEADLINE_S,
        server__write_stall_timeout_s=_TIMEOUT_S,
        background__deadline_s=_DEADLINE_S,
        stream__heartbeat_s=1,
    )
    for number in bench.rounds():
        round_ = _Round(bench, gateway, model, number)
        await round_.play()


class _Round:
    """One pause, and all that is under way in it."""

    def __init__(self, bench: Bench, gateway: Gateway, model: Model, number: int) -> None:
        self._bench = bench
        self._gateway = gateway
        self._model = model
        self._number = number
        self._expected: set[str] = set()

    async def play(self) -> None:
        timeout = aiohttp.ClientTimeout(total=_ENDED_S + _PAUSE_S[1])
        async with aiohttp.ClientSession(headers=HEADERS, timeout=timeout) as session:
            asking = [
                asyncio.create_task(ask(session, name, script, number))
                for name, script in _SCRIPTS.items()
                for ask in (self._streamed, self._polled, self._plain)
                for number in range(_EACH)
            ]
            asking += [asyncio.create_task(self._uploaded(session, number)) for number in range(_EACH)]
            await asyncio.sleep(random.uniform(0.5, 1.0))
            self._gateway.send(signal.SIGSTOP)
            await asyncio.sleep(random.uniform(*_PAUSE_S))
            self._gateway.send(signal.SIGCONT)
            for found in await asyncio.gather(*asking, return_exceptions=True):
                self._bench.require(not isinstance(found, BaseException), f"{type(found).__name__}: {found}")
        called: dict[str, int] = {}
        for call in await self._model.calls():
            called[call.tag] = called.get(call.tag, 0) + 1
        for tag in self._expected:
            self._bench.require(called.get(tag) == 1, f"{tag}: {called.get(tag)} calls")
        self._bench.add("answers", len(self._expected))
        for metric in ("upstream_failures_total", "replica_up"):
            await self._judge_metric(metric)

    async def _judge_metric(self, name: str) -> None:
        async with self._gateway.http.get(f"{self._gateway.admin}/metrics") as page:
            lines = [
                line for line in (await page.text()).splitlines() if line.startswith(f"backburner_{name}")
            ]
        expected = 1 if name == "replica_up" else 0
        wrong = [line for line in lines if float(line.rpartition(" ")[2]) != expected]
        self._bench.require(not wrong, f"there are {wrong}")

    def _tag(self, kind: str, name: str, number: int) -> str:
        tag = f"{kind} {name}.{self._number}.{number}"
        self._expected.add(tag)
        return tag

    def _judge(self, tag: str, response: dict[str, Any]) -> None:
        text = "".join(part["text"] for item in response["output"] for part in item["content"])
        number = text.partition("/")[2].partition("/")[0]  # plain calls have no job, and are counted together
        is_whole = number.isdecimal() and text == expected_text(tag, int(number), _DELTAS)
        found = (response["status"], response["error"], is_whole)
        self._bench.require(found == ("completed", None, True), f"{tag}: {found}")

    async def _streamed(
        self, session: aiohttp.ClientSession, name: str, script: dict[str, Any], number: int
    ) -> None:
        tag = self._tag("streamed", name, number)
        body = create_body(tag, stream=True, deltas=_DELTAS, **script)
        async with session.post(f"{self._gateway.url}/responses", json=body) as answer:
            self._judge(tag, payload(frames(await answer.read())[-1])["response"])

    async def _polled(
        self, session: aiohttp.ClientSession, name: str, script: dict[str, Any], number: int
    ) -> None:
        tag = self._tag("polled", name, number)
        body = create_body(tag, stream=False, deltas=_DELTAS, **script)
        async with session.post(f"{self._gateway.url}/responses", json=body) as answer:
            response = await answer.json()
        async with asyncio.timeout(_ENDED_S + _PAUSE_S[1]):
            while response["status"] in ("queued", "in_progress"):
                await asyncio.sleep(0.2)
                async with session.get(f"{self._gateway.url}/responses/{response['id']}") as answer:
                    response = await answer.json()
        self._judge(tag, response)

    async def _plain(
        self, session: aiohttp.ClientSession, name: str, script: dict[str, Any], number: int
    ) -> None:
        tag = self._tag("plain", name, number)
        is_stream = number % 2 == 0
        body = create_body(tag, stream=is_stream, background=False, deltas=_DELTAS, **script)
        async with session.post(f"{self._gateway.url}/responses", json=body) as answer:
            found = await answer.read()
        self._judge(tag, payload(frames(found)[-1])["response"] if is_stream else orjson.loads(found))

    async def _uploaded(self, session: aiohttp.ClientSession, number: int) -> None:
        """The rest of a request comes while the gateway is stopped."""
        tag = self._tag("uploaded", "body", number)
        body = orjson.dumps(create_body(tag, stream=False, background=False, deltas=_DELTAS))
        reader, writer = await asyncio.open_connection(*self._address())
        try:
            head = f"POST /v1/responses HTTP/1.1\r\nHost: g\r\nAuthorization: {HEADERS['Authorization']}\r\n"
            head += (
                f"Content-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            whole = head.encode() + body
            cut = random.randrange(20, len(whole) - 20)
            writer.write(whole[:cut])
            await asyncio.sleep(1.2)
            writer.write(whole[cut:])
            found = await asyncio.wait_for(reader.read(), _ENDED_S + _PAUSE_S[1])
        finally:
            writer.close()
        self._judge(tag, orjson.loads(found.partition(b"\r\n\r\n")[2]))

    def _address(self) -> tuple[str, int]:
        host, _, port = self._gateway.url.partition("//")[2].partition("/")[0].partition(":")
        return host, int(port)
