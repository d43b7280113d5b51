"""Three gateways on one PostgreSQL, and one of them killed: what its jobs come to, and who shows them.

It starts a throw-away database from the machine's own binaries, a simulated model server, three gateways and
a front that deals connections out in turn. Jobs run and are followed through any of them; then the gateway
that runs most is killed with SIGKILL. It exits with status 0 if every job ended as promised, with 1 if not.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console

from demo.postgres import Postgres, binaries
from demo.screen import Screen
from demo.stage import Child, Stage, StageError, free_port

GATEWAYS = 3
STREAMED = 4
POLLED = 6
WORDS_PER_SECOND = 12.0
ENDED_WITHIN_S = 120
_KEY = {"Authorization": "Bearer demo"}


@dataclass(slots=True)
class Gateway:
    child: Child
    url: str

    def started(self) -> list[str]:
        """Ids of the responses that it has begun to run."""
        log = self.child.log.read_text(errors="replace")
        return re.findall(r'"event":"job","id":"(resp_\w+)","to":"in_progress"', log)

    @property
    def is_alive(self) -> bool:
        return self.child.process.poll() is None


@dataclass(slots=True)
class Job:
    """A response, and the events of it that were seen."""

    id: str
    is_streamed: bool
    seen: list[bytes] = field(default_factory=list)
    final: dict[str, Any] = field(default_factory=dict)


class Front:
    """Deals connections out to the gateways in turn, as a load balancer does."""

    def __init__(self, gateways: list[Gateway]) -> None:
        self._gateways = gateways
        self._turn = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in self._gateways:
            self._turn += 1
            port = int(self._gateways[self._turn % len(self._gateways)].url.rpartition(":")[2])
            try:
                there, back = await asyncio.open_connection("127.0.0.1", port)
                break
            except ConnectionError:
                continue
        else:
            writer.close()
            return
        await asyncio.gather(_pump(reader, back), _pump(there, writer))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while chunk := await source.read(65536):
            sink.write(chunk)
            await sink.drain()
    except ConnectionError:
        pass
    sink.close()


class Play:
    """The gateways, their front, and what is asked of them."""

    def __init__(
        self, screen: Screen, gateways: list[Gateway], url: str, session: aiohttp.ClientSession
    ) -> None:
        self._screen = screen
        self._gateways = gateways
        self._url = f"{url}/v1/responses"
        self._session = session

    async def create(self, number: int) -> Job:
        is_streamed = number < STREAMED
        body = {"model": "demo-model", "input": f"Tell me story {number}.", "background": True}
        if not is_streamed:
            async with self._session.post(self._url, json=body) as answer:
                return Job((await answer.json())["id"], False)
        async with self._session.post(self._url, json={**body, "stream": True}) as answer:
            first = await answer.content.readuntil(b"\n\n")
            answer.close()
        return Job(first.split(b'"id":"', 1)[1].split(b'"', 1)[0].decode(), True)

    async def follow(self, job: Job) -> None:
        """Through the front: a connection that breaks is made again, from the last event on."""
        while not job.seen or not job.seen[-1].startswith(
            (b"event: response.completed", b"event: response.failed")
        ):
            try:
                async with self._session.get(f"{self._url}/{job.id}", params=self._after(job)) as answer:
                    while frame := await answer.content.readuntil(b"\n\n"):
                        if not frame.startswith(b":"):
                            job.seen.append(frame)
            except (aiohttp.ClientError, asyncio.IncompleteReadError, ConnectionError):
                await asyncio.sleep(0.2)

    def _after(self, job: Job) -> dict[str, str]:
        return {"stream": "true"} | ({"starting_after": str(len(job.seen) - 1)} if job.seen else {})

    async def wait(self, job: Job) -> None:
        while job.final.get("status") not in ("completed", "failed", "incomplete", "cancelled"):
            try:
                async with self._session.get(f"{self._url}/{job.id}") as answer:
                    job.final = await answer.json()
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.3)

    def owners(self) -> dict[str, int]:
        """By response, the number of the gateway that began it last."""
        return {job: number for number, gateway in enumerate(self._gateways) for job in gateway.started()}

    async def _all_run(self, jobs: list[Job]) -> dict[str, int]:
        """When something was seen of each that is followed: the number of the gateway that runs each."""
        while True:
            owners = self.owners()
            if len(owners) == len(jobs) and all(len(job.seen) > 9 for job in jobs if job.is_streamed):
                return owners
            await asyncio.sleep(0.1)

    async def act(self) -> bool:
        """Create, follow, kill, and see what comes of it. Returns whether all is as promised."""
        screen = self._screen
        jobs = [await self.create(number) for number in range(STREAMED + POLLED)]
        following = [asyncio.create_task(self.follow(job)) for job in jobs if job.is_streamed]
        waiting = [asyncio.create_task(self.wait(job)) for job in jobs]
        owners = await self._all_run(jobs)
        for number in range(GATEWAYS):
            count = sum(owner == number for owner in owners.values())
            screen.fact(f"gateway {number}", f"{self._gateways[number].url} runs {count} jobs")
        victim = Counter(owners.values()).most_common(1)[0][0]
        lost = {job.id for job in jobs if owners[job.id] == victim}
        screen.line(f"Gateway {victim} is killed (SIGKILL), with {len(lost)} jobs under way.", style="bold")
        self._gateways[victim].child.process.kill()
        killed_at_s = time.monotonic()
        survivors = [gateway for number, gateway in enumerate(self._gateways) if number != victim]
        await asyncio.wait_for(asyncio.gather(*following, *waiting), ENDED_WITHIN_S)
        screen.line(f"All jobs have ended, {time.monotonic() - killed_at_s:.1f} s after that.")
        return all([await self._check(job, job.id in lost, survivors) for job in jobs])

    async def _check(self, job: Job, was_lost: bool, survivors: list[Gateway]) -> bool:
        """As promised: what nobody had seen is complete; what was seen is kept, and ended."""
        may_fail = was_lost and job.is_streamed
        is_ok = job.final["status"] in (("completed", "failed") if may_fail else ("completed",))
        for gateway in survivors:
            url = f"{gateway.url}/v1/responses/{job.id}?stream=true"
            if job.is_streamed:
                async with self._session.get(url) as answer:
                    frames = re.findall(rb"event: .*?\n\n", await answer.read(), re.DOTALL)
                is_ok = is_ok and frames == job.seen
        kind = "followed" if job.is_streamed else "polled"
        what = f"{job.id[:16]}… {kind}, {job.final['status']}" + (
            " (its gateway was killed)" if was_lost else ""
        )
        self._screen.line(("  ✓ " if is_ok else "  ✗ ") + what)
        return is_ok


async def play(screen: Screen, stage: Stage, server: Postgres, *, once: bool) -> int:
    upstream = stage.start_model_server(words_per_second=WORDS_PER_SECOND)
    url = await server.new_database()
    screen.fact("database", url)
    gateways = []
    for number in range(GATEWAYS):
        port, admin_port = free_port(0), free_port(0)
        child = stage.start_replica(
            f"gateway {number}", f"{upstream}/v1", url, port=port, admin_port=admin_port
        )
        gateways.append(Gateway(child, f"http://127.0.0.1:{port}"))
    async with AsyncExitStack() as stack:
        front = await asyncio.start_server(Front(gateways).serve, "127.0.0.1", 0)
        stack.callback(front.close)
        address = f"http://127.0.0.1:{front.sockets[0].getsockname()[1]}"
        screen.fact("front", f"{address}/v1")
        connector = aiohttp.TCPConnector(force_close=True, limit=0)  # each request to the next gateway
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, headers=_KEY))
        is_ok = await Play(screen, gateways, address, session).act()
        if not is_ok:
            screen.failure("Not every job ended as promised.")
            return 1
        screen.line("Every job ended as promised, and both gateways left show the same.", style="bold green")
        if not once:
            screen.line("They stay up; Ctrl-C ends them.")
            await asyncio.Event().wait()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.replicas", description=__doc__)
    parser.add_argument("--once", action="store_true", help="exit after the play")
    args = parser.parse_args()
    screen = Screen(Console(highlight=False))
    screen.title("Backburner: three gateways, one database, and one gateway killed")
    if binaries() is None:
        screen.failure(
            "There is no PostgreSQL on this machine (no initdb): install Debian's package postgresql."
        )
        return 1
    with tempfile.TemporaryDirectory(prefix="backburner-demo-") as directory, Stage(Path(directory)) as stage:
        server = Postgres()
        try:
            return asyncio.run(play(screen, stage, server, once=args.once))
        except KeyboardInterrupt:
            return 130
        except (StageError, TimeoutError) as error:
            screen.failure(f"The play broke off: {error!r}")
            return 1
        finally:
            stage.clear()
            server.remove()


if __name__ == "__main__":
    sys.exit(main())
