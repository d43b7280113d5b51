"""A wall clock that is set while responses run, wait and expire: lengths of time stay what they are."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

from tests.acceptance.harness import frames, payload
from tests.torture.gateway import Gateway
from tests.torture.model import Model, create_body
from tests.torture.trial import Bench, trial

_HOUR_S, _DAY_S = 3600.0, 86_400.0
_STEPS_S = (_HOUR_S, -_HOUR_S, _DAY_S, -_DAY_S, 45.0, -45.0)
"""The last two are small enough to be made up for, by half a second in a second."""
_JUMP_S = 60.0
_SLEW = 0.5
_RETENTION_S, _DEADLINE_S, _PUT_OFF_S = 6.0, 16.0, 3.0
_EARLY_S, _LATE_S = 2.5, 8.0
"""What a busy machine may add to, and what it takes until an end is seen may take from, a length of time."""
_ENDS = {"completed", "failed", "incomplete", "cancelled"}


@trial(
    "T26",
    "the wall clock is set by an hour, a day or 45 s, forwards and backwards, and in half of the rounds back "
    "again, while responses are streamed, polled, queued, put off, late and kept",
    pass_mark=f"0 expired, ended or asked for early, 0 run again, 0 negative times; retention right to "
    f"{_LATE_S:g} s (promised: 60 s), after a small step to half a second in a second; each jump told once",
    runs=36,
    short_runs=1,
    round_s=90,
)
async def set_the_clock(bench: Bench) -> None:
    model = await bench.model()
    for number in bench.rounds():
        step_s = _STEPS_S[number % len(_STEPS_S)]
        gateway = await bench.prepared(
            model.url,
            upstream__concurrency_max=3,
            background__retention_s=_RETENTION_S,
            background__deadline_s=_DEADLINE_S,
        )
        wall = gateway.place / "wall"
        gateway.next_start("--wall", str(wall))
        await gateway.start()
        house = _Round(bench, gateway, model, wall, step_s)
        await house.play(is_set_back=number // len(_STEPS_S) % 2 == 1)
        await gateway.end()


class _Round:
    """One gateway, whose clock is set once or twice."""

    def __init__(self, bench: Bench, gateway: Gateway, model: Model, wall: Path, step_s: float) -> None:
        self._bench = bench
        self._gateway = gateway
        self._model = model
        self._wall = wall
        self._step_s = step_s
        slew = _SLEW if abs(step_s) <= _JUMP_S else 0.0
        self._shortest, self._longest = 1 / (1 + slew), 1 / (1 - slew)

    async def play(self, *, is_set_back: bool) -> None:
        body = create_body(self._tag("kept"), stream=False, deltas=2)
        repeated = {"Idempotency-Key": f"of {self._tag('kept')}"}
        kept = await self._create(body, **repeated)
        await self._gateway.log_of_end(kept)
        kept_at = time.monotonic()
        put_off = await self._create(self._script("put off", fault="status:503", retry_after="3", calls=1))
        late = await self._create(self._script("late", fault="hang", after=3))
        polled = await self._create(self._script("polled", deltas=60))
        streaming = asyncio.create_task(self._stream())
        queued = await self._create(self._script("queued", deltas=5))
        await asyncio.sleep(random.uniform(0.2, 1.2))
        looking = [self._until_gone("kept", kept, kept_at)]
        self._set(self._step_s)
        again = await self._create(body, **repeated)
        self._require(again == kept, "a repeat is another response after the jump")
        if is_set_back:
            asyncio.get_running_loop().call_later(random.uniform(2.5, 4), self._set, 0.0)
        jobs = {"put off": put_off, "polled": polled, "queued": queued, "late": late}
        ends = {name: asyncio.create_task(self._end(name, each)) for name, each in jobs.items()}
        streamed, streamed_at = await streaming
        looking.append(self._until_gone("streamed", streamed, streamed_at))
        looking += [self._end_and_go(name, jobs[name], end) for name, end in ends.items()]
        await asyncio.gather(*looking)
        await self._judge_calls()
        await self._judge_metrics(is_jump=abs(self._step_s) > _JUMP_S)

    # -- what is asked for

    def _tag(self, name: str) -> str:
        return f"{name}.{self._gateway.place.name}"

    def _script(self, name: str, **script: Any) -> dict[str, Any]:
        return create_body(self._tag(name), stream=False, **{"pace_ms": 40, **script})

    async def _create(self, body: dict[str, Any], **headers: str) -> str:
        created = await self._gateway.call("POST", "/responses", body, more=headers)
        assert created.status == 200, created.body
        return str(created.json()["id"])

    async def _stream(self) -> tuple[str, float]:
        body = self._script("streamed", deltas=50) | {"stream": True}
        log = (await self._gateway.call("POST", "/responses", body)).body
        last = payload(frames(log)[-1])
        self._require(last["type"] == "response.completed", f"the stream ended with {last['type']}")
        return str(last["response"]["id"]), time.monotonic()

    def _set(self, offset_s: float) -> None:
        beside = self._wall.with_suffix(".new")
        beside.write_text(str(offset_s))
        beside.rename(self._wall)
        self._bench.add("times set")

    # -- what must become of it

    async def _end(self, name: str, response_id: str) -> tuple[str, float, float]:
        """Status at the end, when it was seen, and for how long it had been accepted by then."""
        started = time.monotonic()
        while time.monotonic() < started + 2 * _DEADLINE_S + _LATE_S:
            answer = await self._gateway.call("GET", f"/responses/{response_id}")
            if answer.status != 200:
                self._require(False, f"{name} was answered {answer.status} before its end")
                break
            shown = answer.json()
            if shown["status"] in _ENDS:
                is_in_order = shown["created_at"] <= (shown.get("completed_at") or shown["created_at"])
                self._require(is_in_order, f"{name} ended before it was created: {shown}")
                return shown["status"], time.monotonic(), time.monotonic() - started
            after_ms = int(answer.headers["openai-poll-after-ms"])
            self._require(after_ms > 0, f"{name} is to be asked for after {after_ms} ms")
            await asyncio.sleep(0.1)
        self._require(False, f"{name} has no end")
        return "", time.monotonic(), 0.0

    async def _end_and_go(
        self, name: str, response_id: str, end: asyncio.Task[tuple[str, float, float]]
    ) -> None:
        status, at, took_s = await end
        expected = "failed" if name == "late" else "completed"
        self._require(status == expected, f"{name} ended as {status} after {took_s:.1f} s")
        least_s = (_DEADLINE_S - 5 if name == "late" else 0.0) * self._shortest
        self._require(took_s >= least_s, f"{name} ended as {status} after {took_s:.1f} s already")
        if name == "late":
            most_s = _DEADLINE_S * self._longest + _LATE_S
            self._require(took_s <= most_s, f"{name} ended after {took_s:.1f} s only")
        await self._until_gone(name, response_id, at)

    async def _until_gone(self, name: str, response_id: str, ended_at: float) -> None:
        """It is there until its retention is over, and then it is not."""
        most_s = _RETENTION_S * self._longest + _LATE_S
        kept_s = 0.0
        while kept_s <= most_s:
            answer = await self._gateway.call("GET", f"/responses/{response_id}")
            kept_s = time.monotonic() - ended_at
            if answer.status == 404:
                break
            await asyncio.sleep(0.1)
        least_s = _RETENTION_S * self._shortest - _EARLY_S
        self._bench.add("expiries")
        error_s = max(_RETENTION_S * self._shortest - kept_s, kept_s - _RETENTION_S * self._longest, 0.0)
        self._bench.most("largest error of retention s", error_s)
        self._require(kept_s >= least_s, f"{name} was kept for {kept_s:.1f} s only")
        self._require(kept_s <= most_s, f"{name} was kept for more than {kept_s:.1f} s")

    async def _judge_calls(self) -> None:
        """None of them twice, but for the one that was sent away; and that one not before it was told to."""
        called: dict[str, list[float]] = {}
        for call in await self._model.calls():
            if call.tag.endswith(self._gateway.place.name):
                called.setdefault(call.tag.partition(".")[0], []).append(call.started_at)
        counts = {name: len(times) for name, times in called.items()}
        expected = dict.fromkeys(("kept", "late", "polled", "streamed", "queued"), 1) | {"put off": 2}
        self._bench.add("run again", sum(counts.values()) - sum(expected.values()))
        if self._require(counts == expected, f"the backend was asked {counts}"):
            first, second = called["put off"]
            least_s = 0.9 * _PUT_OFF_S * self._shortest - 0.1
            self._require(second - first >= least_s, f"it was asked again after {second - first:.2f} s")

    async def _judge_metrics(self, *, is_jump: bool) -> None:
        async with self._gateway.http.get(f"{self._gateway.admin}/metrics") as page:
            lines = [line for line in (await page.text()).splitlines() if not line.startswith("#")]
        negative = [line for line in lines if float(line.rpartition(" ")[2]) < 0]
        self._require(not negative, f"there are {negative}")
        told = sum(
            float(line.split()[1]) for line in lines if line.startswith("backburner_clock_jumps_total")
        )
        self._require(told == is_jump, f"{told:g} jumps were told")  # the way back is none: all is as it was

    def _require(self, condition: object, message: str) -> bool:
        return self._bench.require(condition, f"{self._step_s:+g} s: {message}")
