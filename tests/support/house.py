"""A house: an engine on a store, and a model server that plays a recording and stops where a test says."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import orjson

from gateway.config import Settings
from gateway.core.call import BackendCall
from gateway.core.job import Job, NewJob
from gateway.core.retry import RetryPolicy
from gateway.core.upstream import Upstream, UpstreamClosed, UpstreamFailed, UpstreamFrames
from gateway.core.webhooks import Attempt, Delivery, Verdict
from gateway.engine.clock import Clock
from gateway.engine.credentials import CallerHeaders
from gateway.engine.engine import Engine
from gateway.engine.jobs import Repeat, Submission
from gateway.engine.refusals import previous_not_found
from gateway.observe import Observer
from gateway.store.port import JobStore, QueueLimits, Work
from gateway.wire.http.head import Credential
from gateway.wire.speech import Speech
from gateway.wire.speech_responses import ResponsesSpeech
from gateway.wire.sse import KEEP_ALIVE, SseDecoder, data_of, split_frames

PATIENCE_S = 20
PATIENCE = RetryPolicy(
    down_wait_s=300,
    put_offs_max=2,
    put_off_first_s=1,
    put_off_max_s=120,
    backoff_first_s=0.1,
    backoff_max_s=2,
)
TRANSCRIPT = Path(__file__).parents[1] / "transcripts" / "vllm" / "responses-stream.txt"
TENANT, OTHER = b"t" * 32, b"o" * 32

_recorded = TRANSCRIPT.read_bytes()
FRAMES = SseDecoder(2**20).feed(_recorded[_recorded.index(b"event: ") :])
assert len(FRAMES) > 20


def frames(start: int = 0, stop: int | None = None) -> UpstreamFrames:
    """Some of the recorded answer: 0 and 1 are lifecycle, 4 to 20 text, the last one is its end."""
    return UpstreamFrames(FRAMES[start:stop])


class Hold:
    """A place in a script where the model server stops until told to go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def here(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.reached.wait()


Step = Upstream | Hold | Exception
ALL: Sequence[Step] = [*(frames(n, n + 4) for n in range(0, len(FRAMES), 4)), UpstreamClosed()]


class ScriptedBackend:
    """Plays `script`, or for a job that `scripts` names, that one."""

    def __init__(self) -> None:
        self.script: Sequence[Step] = ALL
        self.scripts: dict[str, Sequence[Step]] = {}
        self.calls: list[BackendCall] = []
        self.retry_policy = PATIENCE
        self.unreached_s = 0.0
        self.retry_wait_s = 0.0
        self.put_offs: list[tuple[str, float | None]] = []
        self.open = 0
        self.open_max = 0
        self._closed: dict[str, asyncio.Event] = {}

    name = "default"
    sees_callers = True

    @property
    def speech(self) -> Speech:
        return ResponsesSpeech()

    async def ask(self, credential: Credential | None) -> Speech:
        return self.speech

    def learned(self, lesson: str) -> None:
        pass

    def remember(self, model: Any, speech: Speech) -> None:
        pass

    @property
    def retry_in_s(self) -> float:
        return self.retry_wait_s

    def book_retry(self) -> None:
        pass

    def retry_refused(self) -> None:
        pass

    def rest(self, job_id: str, asked_s: float | None) -> None:
        self.put_offs.append((job_id, asked_s))

    async def stream(self, call: BackendCall) -> AsyncGenerator[Upstream, None]:
        self.calls.append(call)
        self.open += 1
        self.open_max = max(self.open_max, self.open)
        try:
            for step in self.scripts.get(call.job_id, self.script):
                if isinstance(step, Hold):
                    step.reached.set()
                    await step.go.wait()
                elif isinstance(step, Exception):
                    raise step
                elif isinstance(step, UpstreamFailed):
                    yield replace(step, unreached_s=self.unreached_s)
                else:
                    yield step
        finally:
            self.open -= 1
            self._closed.setdefault(call.job_id, asyncio.Event()).set()

    def calls_of(self, response_id: str) -> list[BackendCall]:
        return [call for call in self.calls if call.job_id == response_id]

    async def closed(self, response_id: str) -> None:
        """Its iterator was closed: a real one would have closed its connection."""
        async with asyncio.timeout(PATIENCE_S):
            await self._closed.setdefault(response_id, asyncio.Event()).wait()


class OnlyBackend:
    """The settings have one backend, the scripted one."""

    names = ("default",)

    def __init__(self, backend: ScriptedBackend, slots: int) -> None:
        self.backend = backend
        self.slots_now = slots
        self.kept = 0
        self.why_halted: str | None = None

    def get(self, name: str) -> ScriptedBackend | None:
        return self.backend if name == "default" else None

    def slots(self, name: str) -> int:
        return self.slots_now

    def slots_kept(self, name: str) -> int:
        return self.kept

    def held_until_ms(self, name: str, now_ms: int) -> int | None:
        return None

    def halted(self, name: str) -> str | None:
        return self.why_halted


class ScriptedSender:
    """Answers as `script` says, then that everything is taken."""

    def __init__(self) -> None:
        self.script: list[Attempt | Hold | Exception] = []
        self.sent: list[Delivery] = []

    async def send(self, delivery: Delivery) -> Attempt:
        self.sent.append(delivery)
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Hold):
            step.reached.set()
            await step.go.wait()
        elif isinstance(step, Exception):
            raise step
        elif step is not None:
            return step
        return Attempt(Verdict.TAKEN, "http_200")


class SetClock(Clock):
    """Time stands still until a test moves it."""

    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def resync(self) -> None:
        pass

    def advance(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


class Signals(Observer):
    """What happened to each job, in order; and a way to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []
        self._news = asyncio.Event()

    def _note(self, response_id: str, what: str) -> None:
        self.seen.append((response_id, what))
        self._news.set()

    def job_started(
        self,
        response_id: str,
        backend: str,
        attempt: int,
        waited_s: float,
        *,
        is_first: bool,
        tenant: bytes = b"",
    ) -> None:
        super().job_started(response_id, backend, attempt, waited_s, is_first=is_first, tenant=tenant)
        self._note(response_id, "started")

    def job_finished(
        self,
        response_id: str,
        backend: str,
        outcome: str,
        code: str | None,
        reason: str,
        ran_s: float | None,
        *,
        tenant: bytes = b"",
    ) -> None:
        super().job_finished(response_id, backend, outcome, code, reason, ran_s, tenant=tenant)
        self._note(response_id, reason)
        self._note(response_id, "finished")

    def job_released(self, response_id: str, reason: str, after_s: float) -> None:
        super().job_released(response_id, reason, after_s)
        self._note(response_id, "released")

    def claim_lost(self, response_id: str) -> None:
        super().claim_lost(response_id)
        self._note(response_id, "claim lost")

    def of(self, response_id: str) -> list[str]:
        return [what for name, what in self.seen if name == response_id]

    async def until(self, response_id: str, what: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while (response_id, what) not in self.seen:
                self._news.clear()
                await self._news.wait()


class Wrapped:
    """A store that passes everything on; tests override what they want to be in the way of."""

    def __init__(self, store: Any) -> None:
        self.inner = store

    def __init_subclass__(cls) -> None:
        """A store's `append` gives a future; one that is written as a coroutine here does, too."""
        if (append := cls.__dict__.get("append")) is not None:
            cls.append = lambda *given, **more: asyncio.ensure_future(append(*given, **more))  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Queueing(Wrapped):
    """Every job waits for a claim of its own, as one does that is not alone."""

    async def start(self, job: NewJob, limits: QueueLimits) -> tuple[str, Work | None]:
        return await self.create(job, limits), None


class House:
    """One process: a store, an engine, and what a client can do with them."""

    def __init__(
        self,
        store: Any,
        settings: Settings,
        backend: ScriptedBackend,
        clock: SetClock,
        observer: Signals,
    ) -> None:
        self.store = store
        self.settings = settings
        self.backend = backend
        self.clock = clock
        self.observer = observer
        assert settings.upstream is not None
        self.backends = OnlyBackend(backend, settings.upstream.concurrency_max)
        self.sender = ScriptedSender()
        self.engine = Engine(
            store, self.backends, self.sender, settings, self.observer, pepper=b"p" * 32, clock=clock
        )
        self.jobs = self.engine.jobs
        self.failed = asyncio.Event()

    async def start(self) -> None:
        self.failed = await self.engine.start()

    async def kill(self) -> None:
        """As near as one process can get: nothing is drained or handed over, the file just lies there."""
        await self.engine.stop()
        await self.store.close()

    # -- what a client does

    async def submit(
        self,
        *,
        stream: bool = False,
        tenant: bytes = TENANT,
        previous: str | None = None,
        credential: Credential | None = None,
        webhook: str | None = None,
        **body: Any,
    ) -> str:
        response_id = f"resp_{next(_numbers):048x}"
        given = {"model": "tiny", "input": "Count to 5.", "background": True, "stream": stream, **body}
        if previous is not None:
            given["previous_response_id"] = previous

        async def vetted(is_previous_ours: bool) -> Submission:
            if previous is not None and not is_previous_ours:
                raise previous_not_found(previous)
            return Submission(
                response_id=response_id,
                tenant=tenant,
                backend=self.backend,
                body=given,
                target="/v1/responses",
                stored_headers={"user-agent": "test"},
                held_headers=CallerHeaders(credential, {"x-held": "1"}),
                webhook=webhook,
            )

        accepted = await self.jobs.accept(tenant, Repeat(), previous, vetted)
        answer = orjson.loads(accepted.response)
        assert (answer["id"], answer["status"]) == (response_id, "queued")
        return response_id

    async def job(self, response_id: str) -> Job:
        job = await self.jobs.find(response_id, TENANT)
        assert job is not None
        return job

    async def shown(self, response_id: str) -> dict[str, Any]:
        """The Response as a GET shows it."""
        found: dict[str, Any] = orjson.loads(await self.jobs.show(await self.job(response_id)))
        return found

    async def ended(self, response_id: str) -> dict[str, Any]:
        """The Response, once it has ended."""
        await self.observer.until(response_id, "finished")
        return await self.shown(response_id)

    async def cancel(self, response_id: str) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            job = await self.jobs.cancel(await self.job(response_id))
        found: dict[str, Any] = orjson.loads(await self.jobs.show(job))
        return found

    async def stream(self, response_id: str, after: int = -1, tenant: bytes = TENANT) -> bytes:
        """All the events that a reader gets."""
        blocks = []
        async with asyncio.timeout(PATIENCE_S):
            async with aclosing(self.engine.followers.follow(response_id, tenant, after=after)) as stream:
                async for block in stream:
                    if block not in (b"", KEEP_ALIVE):
                        assert split_frames(block), "whole events only"
                        blocks.append(block)
        return b"".join(blocks)

    async def stored(self, response_id: str) -> list[dict[str, Any]]:
        """The stored events; contiguous, and with one terminal event at most."""
        events = parsed(await self.store.all_events(response_id))
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        terminal = [event for event in events if is_terminal(event)]
        assert len(terminal) <= 1
        assert not terminal or events[-1] is terminal[0]
        return events

    async def tick(self) -> None:
        """One round of the sweeper."""
        await self.engine._sweeper.end()
        await self.engine._sweeper.purge()


_numbers = itertools.count(1)


def parsed(stream: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(data_of(frame)) for frame in split_frames(stream)]


def is_terminal(event: dict[str, Any]) -> bool:
    return event["type"] in ("response.completed", "response.failed", "response.incomplete")


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


async def until_noted(house: House, response_id: str) -> None:
    """The run is over; its ending is left to the sweeper, which may have been there already."""
    async with asyncio.timeout(PATIENCE_S):
        while response_id in house.engine._runner._runs:
            await asyncio.wait(house.engine._runner._tasks())


class Build(Protocol):
    """Builds a house on the one file of the test; the one before must have been killed or closed."""

    def __call__(
        self,
        *,
        background: dict[str, Any] | None = None,
        stream: dict[str, Any] | None = None,
        credentials: dict[str, Any] | None = None,
        webhooks: dict[str, Any] | None = None,
        request_webhooks: dict[str, Any] | None = None,
        concurrency_max: int = 256,
        database_bytes_max: int = 4 * 2**30,
        wrap: Callable[[JobStore], Any] = ...,
        is_started: bool = True,
    ) -> Awaitable[House]: ...
