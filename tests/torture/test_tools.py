"""The tools of the trials do what they say: an oracle that finds nothing would prove nothing."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from tests.torture import journal, oracle
from tests.torture.__main__ import Plan
from tests.torture.journal import Journal, Story
from tests.torture.model import Model, create_body, expected_text
from tests.torture.oracle import Found, Verdict
from tests.torture.process import Helper
from tests.torture.proxy import Proxy
from tests.torture.trial import TRIALS, Bench, all_trials

TAG, DELTAS = "t.1", 3


def event(number: int, kind: str, **fields: object) -> bytes:
    data = orjson.dumps({"type": f"response.{kind}", "sequence_number": number, **fields})
    return b"event: response.%b\ndata: %b\n\n" % (kind.encode(), data)


def final(status: str = "completed", text: str | None = None) -> dict[str, object]:
    said = expected_text(TAG, 1, DELTAS) if text is None else text
    return {"status": status, "output": [{"content": [{"text": said}]}]}


def log(ending: dict[str, object], *, call: int = 1) -> list[bytes]:
    pieces = [f"{TAG}/{call}/{number} " for number in range(DELTAS)]
    deltas = [event(n, "output_text.delta", delta=piece) for n, piece in enumerate(pieces, 1)]
    return [event(0, "created"), *deltas, event(DELTAS + 1, "completed", response=ending)]


def problems(story: Story, found: Found) -> list[str]:
    verdict = Verdict()
    oracle.judge(story, found, verdict)
    return verdict.problems


def told() -> Story:
    story = Story("resp_1", TAG, True, DELTAS, 0.0)
    for one in log(final()):
        story.has_seen(one, 1.0)
    story.final = orjson.dumps(final())
    return story


def found(events: list[bytes] | None = None, ending: dict[str, object] | None = None) -> Found:
    return Found(200, orjson.dumps(ending or final()), b"".join(log(final()) if events is None else events))


def test_the_oracle_is_content_with_what_was_seen() -> None:
    assert problems(told(), found()) == []


@pytest.mark.parametrize(
    ("what", "now"),
    [
        ("lost", Found(404)),
        ("unfinished", Found(200)),
        ("an error", Found(500)),
        ("an event missing", found(log(final())[:-1])),
        ("an event doubled", found([*log(final())[:2], *log(final())[1:]])),
        ("two events exchanged", found([log(final())[1], log(final())[0], *log(final())[2:]])),
        (
            "an event changed",
            found([log(final())[0], event(1, "output_text.delta", delta="x"), *log(final())[2:]]),
        ),
        ("another generation", found(log(final(), call=2))),
        ("another end", found(ending=final("failed"))),
        ("a part of the text", found(ending=final(text=expected_text(TAG, 1, DELTAS - 1)))),
        ("a spliced text", found(ending=final(text=f"{TAG}/1/0 {TAG}/2/1 {TAG}/2/2 "))),
        ("two ends", found([*log(final()), event(DELTAS + 2, "failed", response=final())])),
    ],
)
def test_the_oracle_finds(what: str, now: Found) -> None:
    assert problems(told(), now)


def test_the_oracle_holds_a_cancel_and_a_delete_against_what_came_after() -> None:
    story = told()
    story.final = None
    story.cancelled = orjson.dumps(final("cancelled"))
    assert problems(story, found())
    story = told()
    story.is_delete_asked = True
    assert problems(story, Found(404)) == problems(story, found()) == []
    story.is_deleted = True
    assert problems(story, found())


async def test_a_journal_tells_what_was_noted(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal") as notes:
        await notes.note("asked", tag="a")
        await notes.note("asked", tag="b")
        await notes.note("asked", tag="c")
        await notes.note("refused", tag="b", status=503)
        await notes.note("accepted", id="resp_1", tag="a", streamed=True, deltas=DELTAS)
        events = [one.decode() for one in log(final())]
        await asyncio.gather(*(notes.note("events", id="resp_1", events=[one]) for one in events))
        await notes.note("status", id="resp_1", status="queued")
    read = journal.read(notes.path)
    story = read.stories["resp_1"]
    assert (read.unanswered, read.refused) == ({"c"}, {"b": 503})
    assert list(story.seen.values()) == log(final())
    assert story.first_output_at is not None
    assert story.wrongs == []
    story.had_status("in_progress", 1.0)
    story.had_status("queued", 2.0)
    story.has_seen(event(0, "created", other=1), 2.0)
    assert len(story.wrongs) == 2


async def test_calls_of_the_model_server_are_counted_by_job_and_end_by_script() -> None:
    async with Model() as model, asyncio.timeout(20):
        body = create_body(TAG, stream=True, deltas=DELTAS, fault="cut", after=2, calls=1)
        texts = [await answer_of(model.port, body, job="resp_1") for _ in range(2)]
        assert expected_text(TAG, 1, 2).encode().split()[1] in texts[0]
        assert b"response.completed" not in texts[0]
        assert expected_text(TAG, 2, DELTAS).encode() in texts[1]
        calls = await model.calls()
        assert [(call.job, call.tag, call.number, call.sent) for call in calls] == [
            ("resp_1", TAG, 1, 2),
            ("resp_1", TAG, 2, DELTAS),
        ]


async def answer_of(port: int, body: dict[str, object], *, job: str = "") -> bytes:
    """One exchange on a bare socket, to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = orjson.dumps(body)
    head = f"POST /v1/responses HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {job}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    answer = await reader.read()
    writer.close()
    return answer


@asynccontextmanager
async def echo() -> AsyncIterator[Proxy]:
    """A proxy in front of a server that says what it hears."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, Proxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy, asyncio.timeout(20):
        yield proxy


async def said(proxy: Proxy, data: bytes) -> tuple[bytes, float]:
    """What comes back of `data` until the end, and the seconds that it took. Raises: ConnectionError."""
    started = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(data)
        writer.write_eof()
        return await reader.read(), time.monotonic() - started
    finally:
        writer.close()


async def test_each_toxic_of_the_proxy_does_what_it_is_called() -> None:
    async with echo() as proxy:
        assert (await said(proxy, b"x" * 1000))[0] == b"x" * 1000
        await proxy.infect({"kind": "latency", "stream": "down", "ms": 300})
        assert (await said(proxy, b"x"))[1] >= 0.3
        await proxy.infect({"kind": "bandwidth", "stream": "down", "bytes_per_s": 1000})
        assert (await said(proxy, b"x" * 500))[1] >= 0.4
        await proxy.infect({"kind": "slicer", "bytes": 10, "ms": 20})
        data, seconds = await said(proxy, b"x" * 100)
        assert (data, seconds >= 0.2) == (b"x" * 100, True)
        await proxy.infect({"kind": "limit_data", "stream": "down", "bytes": 7})
        assert (await said(proxy, b"x" * 100))[0] == b"x" * 7
        await proxy.infect({"kind": "limit_data", "stream": "down", "bytes": 7, "times": 1})
        assert [(await said(proxy, b"x" * 100))[0] for _ in range(2)] == [b"x" * 7, b"x" * 100]
        await proxy.infect({"kind": "limit_data", "stream": "down", "bytes": 7, "reset": True})
        with pytest.raises(ConnectionResetError):
            await said(proxy, b"x" * 100)
        await proxy.infect({"kind": "timeout", "after_ms": 300})
        data, seconds = await said(proxy, b"x")
        assert (data, seconds >= 0.3) == (b"", True)
        await proxy.infect({"kind": "half_open", "stream": "down"})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(said(proxy, b"x"), 0.3)
        await proxy.infect(
            {"kind": "latency", "stream": "down", "ms": 5000}, {"kind": "reset_peer", "after_ms": 50}
        )
        with pytest.raises(ConnectionResetError):
            await said(proxy, b"x")
        assert (await proxy.tell())["accepted"] == 11


async def test_a_failure_of_a_trial_is_a_failure_of_the_run(tmp_path: Path) -> None:
    all_trials()
    bench = Bench(TRIALS["T1"], tmp_path, 3)
    for number in bench.rounds():
        bench.require(number < 2, "three is too many")
    assert (bench.result.failures, bench.result.is_passed) == (["three is too many"], False)


async def test_a_trial_whose_process_does_not_start_is_not_played(tmp_path: Path) -> None:
    class Mute(Helper):
        module = "this"  # it prints a poem, and no port

    async def play(bench: Bench) -> None:
        async with Mute():
            raise AssertionError("it came up")

    all_trials()
    result = await Bench(replace(TRIALS["T1"], play=play), tmp_path, 1).run()
    assert (result.verdict, result.failures, result.is_passed) == ("not played", [], False)
    assert result.obstacle == "this did not say its port in time"


@pytest.mark.parametrize(
    ("environ", "played"),
    [
        ({}, (len(all_trials()), 200)),
        ({"SHORT": "1"}, (sum(one.short_runs is not None for one in all_trials()), 6)),
        ({"SHORT": "1", "ONLY": "T43"}, (1, 1)),
        ({"SHORT": "0", "ONLY": " t1, T9 ,"}, (2, 200)),
        ({"SHORT": "1", "RUNS": "7", "ONLY": "T1"}, (1, 7)),
    ],
)
def test_what_is_asked_for_is_played(environ: dict[str, str], played: tuple[int, int]) -> None:
    plan = Plan.read([], environ)
    assert (len(plan.trials), plan.runs_of(plan.trials[0])) == played


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["--help"], {}, "ONLY=T1,T9"),
        ([], {"ONLY": "T1,T999"}, "no trial is called t999; there are: T1"),
        ([], {"RUNS": "many"}, "RUNS: a number of rounds, above 0, not 'many'"),
        ([], {"RUNS": "0"}, "RUNS"),
        ([], {"WITHOUT": "x"}, "no guard is called 'x'; there are: fence"),
        ([], {"REPLICAS": "all"}, "REPLICAS: a number of gateways, from 1 to 9, not 'all'"),
    ],
)
def test_what_cannot_be_played_is_said(arguments: list[str], environ: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Plan.read(arguments, environ)
