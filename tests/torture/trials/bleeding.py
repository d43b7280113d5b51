"""Two hundred tenants over the same connections: what one of them gets has nothing of another's in it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress

import aiohttp
import orjson

from tests.acceptance.keyed import echo_of
from tests.torture.gateway import Gateway
from tests.torture.houses import key_of
from tests.torture.keyed import Keyed
from tests.torture.trial import Bench, trial

_TENANTS = 200
_WORKERS = 48
_PER_ROUND = 1000
_LOST = (aiohttp.ClientError, OSError, TimeoutError)
_BODY = {"model": "tiny", "input": "Who am I?"}


@trial(
    "T28",
    "200 tenants, each is told its own; clients hang up, the backend resets, sets cookies, redirects",
    pass_mark="0 bytes of another tenant's; 0 cookies replayed or passed on; 0 redirects followed",
    runs=200,
    short_runs=4,
    quick_runs=1,
    round_s=30,
)
async def bleed(bench: Bench) -> None:
    async with Keyed() as keyed:
        gateway = await bench.gateway(
            keyed.url, background__queue_per_tenant_max=10_000, tenants__checked_ok_s=2
        )
        for _ in bench.rounds():
            left = iter(range(_PER_ROUND))
            async with asyncio.TaskGroup() as group:
                for _ in range(_WORKERS):
                    group.create_task(_Worker(bench, gateway).work(left))
        told = await keyed.told()
        bench.figure("cookies replayed", told["cookies"])
        bench.figure("redirects followed", len(told["trapped"]))
        bench.require(told["cookies"] == 0, f"{told['cookies']} requests came with another's cookie")
        bench.require(not told["trapped"], f"where it was redirected to came {told['trapped'][:1]}")


class _Worker:
    """One client process, so to say: a few connections, used for whichever tenant comes next."""

    def __init__(self, bench: Bench, gateway: Gateway) -> None:
        self._bench = bench
        self._gateway = gateway
        self._acts = [
            *([self._read] * 6),
            *([self._hang_up] * 3),
            *([self._be_reset] * 2),
            *([self._create] * 4),
            *([self._be_redirected] * 2),
            self._talk,
        ]

    async def work(self, left: Iterator[int]) -> None:
        timeout = aiohttp.ClientTimeout(total=60)
        # Its own jar stays empty too: a cookie that comes through would be kept by it.
        async with aiohttp.ClientSession(timeout=timeout) as self._session:
            for _ in left:
                self._tenant = f"t{random.randrange(_TENANTS)}"
                self._own = echo_of(key_of(self._tenant)).encode()
                self._bench.add("requests")
                await random.choice(self._acts)()
            kept = list(self._session.cookie_jar)
            self._bench.require(not kept, f"a client was given a cookie: {kept[:1]}")

    def _ask(self, method: str, path: str, body: object = None) -> aiohttp.client._RequestContextManager:
        name = random.choice(("Authorization", "api-key", "x-api-key"))
        value = key_of(self._tenant)
        headers = {name: f"Bearer {value}" if name == "Authorization" else value}
        data = None if body is None else orjson.dumps(body)
        return self._session.request(
            method, self._gateway.url + path, data=data, headers=headers, allow_redirects=False
        )

    def _is_own(self, got: bytes, *, is_whole: bool, count: int) -> None:
        expected = self._own * count
        is_right = got == expected if is_whole else expected.startswith(got)
        if not self._bench.require(is_right, f"{self._tenant} got {got[:200]!r}"):
            self._bench.add("foreign")
        self._bench.add("bytes checked", len(got))

    async def _read(self) -> None:
        count = random.choice((1, 3, 50, 400))
        async with self._ask(random.choice(("GET", "POST")), f"/echo/{count}") as answer:
            self._bench.require("Set-Cookie" not in answer.headers, "Set-Cookie came through")
            self._is_own(await answer.read(), is_whole=True, count=count)

    async def _hang_up(self) -> None:
        """At any moment, the time before the head included."""
        count, got = 400, bytearray()
        with suppress(*_LOST):
            async with (
                asyncio.timeout(random.uniform(0.0, 0.03)),
                self._ask("GET", f"/echo/{count}") as answer,
            ):
                async for chunk in answer.content.iter_any():
                    got += chunk
        self._is_own(bytes(got), is_whole=False, count=count)

    async def _be_reset(self) -> None:
        count, got = 60, bytearray()
        with suppress(*_LOST):
            async with self._ask("GET", f"/echo/{count}?reset") as answer:
                if answer.status != 200:
                    return  # it came to no head
                async for chunk in answer.content.iter_any():
                    got += chunk
            self._bench.require(False, "an answer that was cut off looked whole")
        self._is_own(bytes(got), is_whole=False, count=count)

    async def _create(self) -> None:
        """A background response; its client may be gone before it knows the id."""
        is_patient = random.random() < 0.7
        with suppress(*_LOST):
            async with asyncio.timeout(30 if is_patient else random.uniform(0.0, 0.02)):
                async with self._ask("POST", "/responses", {**_BODY, "background": True}) as answer:
                    created = await answer.json()
                    assert answer.status == 200, created
                while True:
                    async with self._ask_again(created["id"], answer) as polled:
                        shown = await polled.json()
                    if shown["status"] not in ("queued", "in_progress"):
                        break
                    await asyncio.sleep(0.02)
                text = shown["output"][0]["content"][0]["text"].encode()
                self._is_own(text, is_whole=True, count=1)
                self._bench.add("responses")

    def _ask_again(
        self, response_id: str, answer: aiohttp.ClientResponse
    ) -> aiohttp.client._RequestContextManager:
        """With the header that it was made with: the same key in another header is another tenant."""
        sent = {
            name: value
            for name, value in answer.request_info.headers.items()
            if name.lower() in ("authorization", "api-key", "x-api-key")
        }
        return self._session.get(f"{self._gateway.url}/responses/{response_id}", headers=sent)

    async def _be_redirected(self) -> None:
        path = random.choice(("/elsewhere", "/responses"))
        body = {**_BODY, "metadata": {"fault": "redirect"}}
        async with self._ask("POST", path, body) as answer:
            self._bench.require(answer.status == 307, f"a redirect came through as {answer.status}")
            await answer.read()

    async def _talk(self) -> None:
        url = self._gateway.url.replace("http:", "ws:") + "/realtime"
        headers = {"Authorization": f"Bearer {key_of(self._tenant)}"}
        async with self._session.ws_connect(url, headers=headers) as socket:
            for _ in range(3):
                await socket.send_str("hello")
                said = await socket.receive_str(timeout=30)
                self._is_own(said.partition(" ")[0].encode(), is_whole=True, count=1)
