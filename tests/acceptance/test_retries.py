"""A model server that is away, busy or broken for a while: jobs wait or are run again, and nobody notices."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from typing import Any

import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.fleet import Fleet, asked_of, final, submit
from tests.acceptance.harness import Gateway, frames, numbers, payload, within
from tests.acceptance.replay import Answer, End, ReplayServer, json_answer, recording

ASK = {"model": "tiny", "input": "Count to 5.", "background": True}
STREAMED = {**ASK, "stream": True}
MCP = {"type": "mcp", "server_label": "x", "server_url": "https://tools.test/"}
RESPONSES = ("--api", "responses")


def refusal(status: int, retry_after: str | None = None, code: str | None = None) -> Answer:
    """An error answer, `As scripted.`"""
    answer = json_answer({"error": {"message": "As scripted.", "type": "x", "code": code}}, status)
    if retry_after is not None:
        answer.headers["Retry-After"] = retry_after
    return answer


async def accept(gateway: Gateway, body: dict[str, Any] = ASK, key: str = "sk-a") -> str:
    answer = await gateway.call("POST", "/responses", body, key=key)
    assert answer.status == 200, answer.body
    response_id: str = answer.json()["id"]
    return response_id


async def gaps(server: ReplayServer, count: int) -> list[float]:
    """Seconds between its first calls, as soon as there are so many."""
    for number in range(count):
        await server.create(number)
    times = [call.at for call in server.creates[:count]]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


# -- away


async def test_jobs_wait_for_a_model_server_that_restarts(fleet: Fleet) -> None:
    """Some had begun to be tried when it went away, most had not; all of them end as if nothing had been."""
    server = await fleet.server()
    gateway = await fleet.gateway({"only": {"url": server.url, "concurrency_max": 4, "down_wait_s": 60}})
    first = await submit(gateway)
    assert (await final(gateway, first))["status"] == "completed"
    await server.kill9()
    jobs = [await submit(gateway, stream=False) for _ in range(12)]
    await gateway.line(event="job", to="waiting", reason="upstream_unreachable")
    seen: dict[str, list[str]] = {job: [] for job in jobs}
    for _ in range(10):
        for job in jobs:
            seen[job].append((await gateway.call("GET", f"/responses/{job}", key="sk-a")).json()["status"])
        await asyncio.sleep(0.1)
    for statuses in seen.values():
        assert set(statuses) <= {"queued", "in_progress"}
        assert statuses == sorted(statuses, key=["queued", "in_progress"].index), "none goes back"
    await server.start()
    for job in jobs:
        assert (await final(gateway, job))["status"] == "completed"
    assert await asked_of(gateway, server) == len(jobs)


async def test_a_model_server_that_stays_away_fails_them_with_a_precise_message(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(
        *RESPONSES,
        upstream=f"http://127.0.0.1:{free_port()}/v1",
        BACKBURNER_UPSTREAM__DOWN_WAIT_S="2",
        BACKBURNER_UPSTREAM__CONCURRENCY_MAX="2",
        BACKBURNER_UPSTREAM__BREAKER_OPEN_S="0.3",
    )
    started = time.monotonic()
    jobs = [await accept(gateway) for _ in range(5)]
    for job in jobs:
        await gateway.log_of_end(job)
        error = (await gateway.call("GET", f"/responses/{job}", key="sk-a")).json()["error"]
        assert error["code"] == "server_error"
        message = error["message"]
        assert message.startswith("The backend could not be reached"), message
        assert " for 2 s" in message or " for 3 s" in message, message
        assert "127.0.0.1" not in message
    assert 2 <= time.monotonic() - started < 6
    for _ in range(2):  # the first one may be the one that tries
        plain = await gateway.call("POST", "/responses", {"model": "tiny", "input": "Count."})
    assert (plain.status, plain.error["code"]) == (503, "backend_unavailable")
    assert 1 <= int(plain.headers["retry-after"]) <= 5


async def test_a_plain_request_is_told_what_kept_it_from_the_model_server(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(*RESPONSES, upstream=f"http://127.0.0.1:{free_port()}/v1")
    plain = await gateway.call("POST", "/responses", {"model": "tiny", "input": "Count."})
    assert (plain.status, plain.error["code"]) == (502, "backend_unreachable")
    assert plain.error["message"] == "The backend could not be reached: connection refused."
    count = await gateway.metric('backburner_upstream_errors_total{kind="passthrough",reason="unreachable"}')
    assert count == 2, "it was tried once more"
    retried = 'backburner_upstream_retries_total{backend="default",reason="unreachable"}'
    assert await gateway.metric(retried) == 1


async def test_a_deadline_comes_before_any_wait(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(
        *RESPONSES, upstream=f"http://127.0.0.1:{free_port()}/v1", BACKBURNER_BACKGROUND__DEADLINE_S="2"
    )
    ended = await gateway.ended((await gateway.call("POST", "/responses", ASK)).json()["id"])
    assert ended["status"] == "failed"
    assert await gateway.metric('backburner_jobs{status="in_progress"}') == 0


# -- busy


@pytest.mark.parametrize(
    ("status", "retry_after", "least_s", "most_s"),
    [
        (503, "1", 0.9, 1.1),
        (429, "2", 1.8, 2.2),
        (503, "0", 0, 0.2),
        (429, None, 0.45, 0.55),
        (503, "soon", 0.45, 0.55),
        (429, "99999999999", 2.7, 3.0),  # the longest wait that the settings allow
    ],
)
async def test_a_job_that_is_sent_away_comes_back_when_it_was_told_to(
    start_gateway: StartGateway,
    replay_server: ReplayServer,
    status: int,
    retry_after: str | None,
    least_s: float,
    most_s: float,
) -> None:
    gateway = await start_gateway(*RESPONSES, BACKBURNER_UPSTREAM__RETRY_AFTER_MAX_S="3")
    replay_server.script(refusal(status, retry_after))
    job = await accept(gateway, STREAMED | {"stream": False})
    waiting = await gateway.line(event="job", id=job, to="waiting", reason="upstream_put_off")
    assert least_s <= waiting["after_s"] <= most_s
    shown = (await gateway.call("GET", f"/responses/{job}", key="sk-a")).json()
    assert shown["status"] in ("in_progress", "completed")
    (gap,) = await gaps(replay_server, 2)
    assert least_s <= gap <= most_s + 0.25, "and the time that it takes to be claimed and called"
    await gateway.log_of_end(job)
    starts = [line for line in gateway.lines if line.get("id") == job and line.get("to") == "in_progress"]
    assert [line["attempt"] for line in starts] == [1, 1], "no attempt: it was not accepted"


async def test_a_retry_after_date_is_understood(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(*RESPONSES)
    at = time.time() + 3
    replay_server.script(refusal(503, time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(at))))
    job = await accept(gateway)
    waiting = await gateway.line(event="job", id=job, to="waiting")
    assert 0.9 * 1.5 <= waiting["after_s"] <= 1.1 * 3
    assert (await gateway.log_of_end(job))["to"] == "completed"


async def test_a_job_lets_itself_be_sent_away_so_often_and_fails_with_the_servers_words(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(*RESPONSES, BACKBURNER_BACKGROUND__RECOVERY="never")
    replay_server.script(*(refusal(503, "0") for _ in range(6)))
    reading = asyncio.create_task(gateway.call("POST", "/responses", STREAMED))
    events = frames((await within(reading)).body)
    assert numbers(events) == [0, 1, 2, 3]
    ended = payload(events[-1])["response"]
    assert ended["status"] == "failed"
    assert ended["error"] == {
        "code": "server_error",
        "message": "As scripted. (The backend was asked 6 times.)",
    }
    assert len(replay_server.creates) == 6


async def test_a_used_up_quota_is_final_at_once(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(*RESPONSES)
    replay_server.script(refusal(429, "1", "insufficient_quota"))
    ended = await gateway.ended((await gateway.call("POST", "/responses", ASK)).json()["id"])
    assert ended["error"] == {"code": "insufficient_quota", "message": "As scripted."}
    assert len(replay_server.creates) == 1


async def test_the_others_in_the_queue_leave_a_busy_server_alone(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    """Whoever they are: 503 is meant for everybody. Plain requests go on."""
    gateway = await start_gateway(*RESPONSES, BACKBURNER_UPSTREAM__CONCURRENCY_MAX="1")
    replay_server.script(refusal(503, "2"))
    jobs = [await accept(gateway, key=f"sk-{number % 3}") for number in range(6)]
    waiting = await gateway.line(event="job", to="waiting")
    resting = 'backburner_replica_resting{backend="default",replica="0"}'
    assert await gateway.metric(resting) == 1
    plain = await gateway.call("POST", "/responses", {"model": "tiny", "input": "Count."})
    assert plain.status == 200
    for job in jobs:
        assert (await gateway.log_of_end(job))["to"] == "completed"
    background = [call for call in replay_server.creates if call.header("idempotency-key")]
    first_gap = background[1].at - background[0].at
    assert first_gap >= 1.8
    assert waiting["after_s"] >= 1.8
    assert len(background) == len(jobs) + 1
    assert await gateway.metric(resting) == 0


async def test_the_rate_limit_of_one_caller_keeps_no_other_waiting(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(*RESPONSES, BACKBURNER_UPSTREAM__CONCURRENCY_MAX="1")
    replay_server.script(refusal(429, "2"))
    mine = [await accept(gateway, key="sk-a") for _ in range(3)]
    await gateway.line(event="job", id=mine[0], to="waiting")
    theirs = [await accept(gateway, key="sk-b") for _ in range(3)]
    for job in (*theirs, *mine):
        assert (await gateway.log_of_end(job))["to"] == "completed"
    order = [call.header("authorization") for call in replay_server.creates]
    assert order == ["Bearer sk-a", *["Bearer sk-b"] * 3, *["Bearer sk-a"] * 3]
    assert replay_server.creates[4].at - replay_server.creates[0].at >= 1.8


async def test_another_replica_takes_the_job_at_once(
    start_gateway: StartGateway, replay_server: ReplayServer, fleet: Fleet
) -> None:
    other = await fleet.server()
    gateway = await fleet.gateway(
        {
            "pool": {
                "url": replay_server.url,
                "replicas": [other.url],
                "api": "responses",
                "health_interval_s": 600,
            }
        }
    )
    replay_server.script(*(refusal(503, "60") for _ in range(9)))
    jobs = [await submit(gateway) for _ in range(6)]
    for job in jobs:
        assert (await final(gateway, job))["status"] == "completed"
    assert len(replay_server.creates) == 1, "then it is left alone"
    assert await asked_of(gateway, other) == len(jobs)


async def test_plain_requests_get_the_answer_of_a_busy_server_as_it_is(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(*RESPONSES)
    for status in (429, 503, 500, 502, 504):
        replay_server.script(refusal(status, "7"))
        plain = await gateway.call("POST", "/responses", {"model": "tiny", "input": "Count."})
        assert (plain.status, plain.headers["retry-after"]) == (status, "7")
        assert plain.error["message"] == "As scripted."
    assert len(replay_server.creates) == 5


async def test_a_translated_plain_request_is_told_when_to_come_back(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--api", "chat")
    replay_server.script(refusal(429, "7"))
    plain = await gateway.call("POST", "/responses", {"model": "tiny", "input": "Count."})
    assert (plain.status, plain.headers["retry-after"]) == (429, "7")
    assert plain.error["message"] == "As scripted."
    assert len(replay_server.creates) == 1


async def test_a_wait_is_kept_through_a_crash_and_so_is_how_often_it_was_sent_away(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(*RESPONSES, BACKBURNER_UPSTREAM__RETRY_AFTER_TIMES_MAX="1")
    replay_server.script(refusal(503, "3"), refusal(503, "0"))
    job = await accept(gateway)
    await gateway.line(event="job", id=job, to="waiting")
    await gateway.kill9()
    await gateway.restart()
    assert (await gateway.log_of_end(job))["reason"] == "upstream_put_off"
    (gap,) = await gaps(replay_server, 2)
    assert gap >= 2.7


async def test_a_cancel_finds_a_job_that_waits(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(*RESPONSES)
    replay_server.script(refusal(503, "60"))
    job = await accept(gateway)
    await gateway.line(event="job", id=job, to="waiting")
    cancelled = await gateway.call("POST", f"/responses/{job}/cancel", key="sk-a")
    assert (cancelled.status, cancelled.json()["status"]) == (200, "cancelled")
    assert len(replay_server.creates) == 1


# -- broken


def nonsense() -> Answer:
    pieces = frames(recording("vllm/responses-stream").body)
    return Answer([*pieces[:6], b"event: response.output_text.delta\ndata: {oops\n\n"])


@pytest.mark.parametrize(
    "broken",
    [
        lambda: refusal(500),
        lambda: refusal(502),
        lambda: refusal(504),
        lambda: Answer([], end=End.RESET),
        lambda: Answer(frames(recording("vllm/responses-stream").body)[:6], end=End.RESET),
        nonsense,
    ],
)
async def test_a_call_that_breaks_is_made_once_more_for_who_has_seen_nothing(
    start_gateway: StartGateway, replay_server: ReplayServer, broken: Any
) -> None:
    gateway = await start_gateway(*RESPONSES)
    replay_server.script(broken())
    job = await accept(gateway)
    assert (await gateway.log_of_end(job))["to"] == "completed"
    assert len(replay_server.creates) == 2
    replay_server.script(broken(), broken())
    failed = await gateway.ended((await gateway.call("POST", "/responses", ASK)).json()["id"])
    assert failed["status"] == "failed"
    assert failed["error"]["message"].endswith("(The backend was asked 2 times.)")
    assert len(replay_server.creates) == 4


async def test_a_stream_that_has_shown_nothing_yet_goes_on_as_if_nothing_had_been(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(*RESPONSES)
    replay_server.script(refusal(502), refusal(503, "0"))
    events = frames((await within(gateway.call("POST", "/responses", STREAMED))).body)
    assert numbers(events) == list(range(len(events)))
    kinds = [payload(event)["type"] for event in events]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert kinds.count("response.in_progress") == 1
    assert kinds[-1] == "response.completed"
    assert len(replay_server.creates) == 3


async def test_nothing_is_asked_twice_that_may_have_acted_on_the_world(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(*RESPONSES)
    replay_server.script(refusal(503, "0"), refusal(502))
    failed = await gateway.ended(
        (await gateway.call("POST", "/responses", {**ASK, "tools": [MCP]})).json()["id"]
    )
    assert failed["status"] == "failed"
    assert len(replay_server.creates) == 2, "the first was not even begun, the second may have been"


async def test_recovery_never_still_waits_where_nothing_was_begun(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(*RESPONSES, BACKBURNER_BACKGROUND__RECOVERY="never")
    replay_server.script(refusal(429, "0"))
    assert (await gateway.log_of_end(await accept(gateway)))["to"] == "completed"
    replay_server.script(refusal(502))
    assert (await gateway.log_of_end(await accept(gateway)))["to"] == "failed"
    assert len(replay_server.creates) == 3


async def test_a_proxy_that_cannot_reach_its_server_opens_the_breaker_and_jobs_wait(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(
        *RESPONSES, BACKBURNER_UPSTREAM__BREAKER_CALLS_MIN="6", BACKBURNER_UPSTREAM__BREAKER_OPEN_S="2"
    )
    replay_server.script(*(refusal(502) for _ in range(6)))
    for number in range(6):
        plain = await gateway.call("POST", "/responses", {"model": "tiny", "input": "Count."})
        assert plain.status == 502, number
    plain = await gateway.call("POST", "/responses", {"model": "tiny", "input": "Count."})
    assert (plain.status, plain.error["code"]) == (503, "backend_unavailable")
    assert int(plain.headers["retry-after"]) <= 2
    job = await accept(gateway)
    assert (await gateway.call("GET", f"/responses/{job}", key="sk-a")).json()["status"] == "queued"
    assert (await gateway.log_of_end(job))["to"] == "completed"
    assert len(replay_server.creates) == 7
    assert (await gateway.call("POST", "/responses", {"model": "tiny", "input": "Count."})).status == 200
