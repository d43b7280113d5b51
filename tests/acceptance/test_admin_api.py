"""The admin API, looked at: how it stands, which jobs there are, and all about one of them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.fleet import until
from tests.acceptance.harness import KEY, Gateway, frames, within
from tests.acceptance.operator import get, seen
from tests.acceptance.replay import Answer, ReplayServer, json_answer, replay

ONE_SLOT = {"BACKBURNER_UPSTREAM__CONCURRENCY_MAX": 1}
CONTENT = {"BACKBURNER_UI__CONTENT": "true"}
PROMPT = "prompt-canary-41c7"
ADMIN, READ = "admin-token-77a1", "read-token-90bd"


async def created(gateway: Gateway, key: str = KEY, **more: Any) -> str:
    body = {"model": "tiny", "input": PROMPT, "background": True, **more}
    answer = await gateway.call("POST", "/responses", body, key=key)
    assert answer.status == 200, answer.body
    found: str = answer.json()["id"]
    return found


async def one_runs_and_one_waits(gateway: Gateway, server: ReplayServer) -> tuple[Answer, str, str]:
    """A job whose answer is held, and another one behind it."""
    held = server.script(replay("vllm/responses-stream", hold_after=6))
    runs = await created(gateway)
    await within(held.held.wait())
    return held, runs, await created(gateway, key="sk-b", model="other")


async def ids(gateway: Gateway, query: str) -> list[str]:
    return [job["id"] for job in (await seen(gateway, f"jobs?{query}"))["jobs"]]


async def test_the_overview_says_how_it_stands(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    empty = await seen(gateway, "overview")
    assert (empty["waiting"], empty["running"], empty["oldest_waiting_s"]) == (0, 0, None)
    assert (empty["role"], empty["content"], empty["store"]) == ("admin", False, "ok")
    await one_runs_and_one_waits(gateway, replay_server)

    async def is_told() -> bool:
        now = await seen(gateway, "overview")
        return bool(now["running"] == 1 and now["waiting"] == 1)

    await until(is_told)
    now = await seen(gateway, "overview")
    (backend,) = now["backends"]
    assert now["states"]["queued"] == now["states"]["in_progress"] == 1
    assert (backend["running"], backend["capacity"], backend["waiting"], backend["demand"]) == (1, 1, 1, 2)
    assert backend["reasons"] == {"slot": 1}
    assert now["commit_s"] is None or now["commit_s"] > 0
    assert backend["replicas"][0]["url"] == replay_server.url
    assert sorted(one["waiting"] + one["running"] for one in now["tenants"]) == [1, 1]
    assert now["models"] == ["other", "tiny"]


async def test_jobs_are_listed_by_filters_that_hold_together(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    replay_server.script(replay("vllm/responses-error-bad-model-stream"))
    failed = await created(gateway)
    await gateway.ended(failed)
    _, runs, waits = await one_runs_and_one_waits(gateway, replay_server)
    assert await ids(gateway, "") == [waits, runs, failed]
    assert await ids(gateway, "order=oldest") == [failed, runs, waits]
    assert await ids(gateway, "state=live") == [waits, runs]
    assert await ids(gateway, "state=queued,failed") == [waits, failed]
    assert await ids(gateway, "model=tiny&state=live") == [runs]
    assert await ids(gateway, "error=model_not_found&backend=default") == [failed]
    assert await ids(gateway, f"id={runs[:20]}") == [runs]
    assert await ids(gateway, "older=1h") == []
    assert await ids(gateway, "newer=1h&state=failed") == [failed]
    assert await ids(gateway, "backend=nobody") == []
    (row,) = (await seen(gateway, "jobs?state=queued"))["jobs"]
    assert (row["waits_for"], row["is_running"]) == ("slot", False)
    assert await ids(gateway, f"tenant={row['tenant']}") == [waits]
    first = await seen(gateway, "jobs?limit=2")
    assert await ids(gateway, f"limit=2&cursor={first['next']}") == [failed]


async def test_jobs_in_progress_are_sorted_by_what_they_have_done(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(BACKBURNER_UPSTREAM__CONCURRENCY_MAX=3)
    done = await created(gateway)
    await gateway.ended(done)
    jobs = {}
    for hold_after in (8, 11, 6):
        held = replay_server.script(replay("vllm/responses-stream", hold_after=hold_after))
        jobs[hold_after] = await created(gateway)
        await within(held.held.wait())
    waits = await created(gateway)
    by_events = [jobs[11], jobs[8], jobs[6]]

    async def are_sorted() -> bool:
        return await ids(gateway, "order=events") == by_events

    await until(are_sorted)
    assert await ids(gateway, "order=events&state=in_progress&model=tiny") == by_events
    first = await seen(gateway, "jobs?order=events&limit=2")
    assert [job["id"] for job in first["jobs"]] == by_events[:2]
    assert await ids(gateway, f"order=events&limit=2&cursor={first['next']}") == by_events[2:]
    by_speed = await ids(gateway, "order=speed")
    assert set(by_speed) == {*by_events}
    assert waits not in by_speed


async def test_a_query_that_cannot_be_meant_is_refused_with_its_parameter(gateway: Gateway) -> None:
    for query, param in (
        ("jobs?state=sleeping", "state"),
        ("jobs?tenant=xyz", "tenant"),
        ("jobs?id=a%20b", "id"),
        ("jobs?older=soon", "older"),
        ("jobs?limit=0", "limit"),
        ("jobs?limit=9999", "limit"),
        ("jobs?cursor=-1", "cursor"),
        ("jobs?order=best", "order"),
        ("jobs?order=events&state=live", "state"),
        ("jobs?order=speed&state=completed", "state"),
        ("jobs?colour=red", "colour"),
        (f"jobs?model={'m' * 300}", "model"),
        ("history?what=weather", "what"),
        ("history?by=colour", "by"),
        ("history?tenant=xyz", "tenant"),
    ):
        answer = await get(gateway, query)
        assert (answer.status, answer.error["param"]) == (400, param), query


async def test_one_job_says_why_it_waits_and_what_if_the_gateway_dies(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    held, runs, waits = await one_runs_and_one_waits(gateway, replay_server)
    job = await seen(gateway, f"jobs/{waits}")
    assert job["waits"]["why"] == "slot"
    assert "All 1 slots of default are taken." in job["waits"]["sentence"]
    assert job["if_killed"]["why"] == "waits_again"
    running = await seen(gateway, f"jobs/{runs}")
    assert (running["waits"], running["is_running"]) == (None, True)
    assert running["if_killed"]["why"] == "runs_again"
    assert [step["to"] for step in running["timeline"]] == ["queued", "in_progress", "called", "answered"]
    assert running["timeline"][-1]["upstream_status"] == 200
    assert running["upstream_request"] == (await replay_server.create(0)).header("x-request-id")
    held.release.set()
    await gateway.ended(runs)
    over = await seen(gateway, f"jobs/{runs}")
    assert over["if_killed"]["why"] == "kept"
    assert over["timeline"][-1]["to"] == over["status"] == "completed"
    assert (await get(gateway, "jobs/resp_unknown")).status == 404


async def test_what_was_said_of_a_job_that_runs_comes_true_when_the_gateway_is_killed(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway()
    shown = replay_server.script(replay("vllm/responses-stream", hold_after=8))
    async with gateway.events("/responses", _streamed()) as events:
        (first, *_) = [await anext(events) for _ in range(6)]
        response_id = frames(first)[0].split(b'"id":"')[1].split(b'"')[0].decode()
        await within(shown.held.wait())
        silent = replay_server.script(replay("vllm/responses-stream", hold_after=0))
        quiet = await created(gateway)
        await within(silent.held.wait())
        assert (await seen(gateway, f"jobs/{response_id}"))["if_killed"]["why"] == "fails"
        assert (await seen(gateway, f"jobs/{quiet}"))["if_killed"]["why"] == "runs_again"
        assert (await seen(gateway, f"jobs/{response_id}"))["readers"] == 1
        await gateway.kill9()
    await gateway.restart()
    assert (await gateway.ended(response_id))["status"] == "failed"
    assert (await gateway.ended(quiet))["status"] == "completed"
    timeline = (await seen(gateway, f"jobs/{quiet}"))["timeline"]
    assert timeline[1] == {**timeline[1], "to": "in_progress", "is_earlier_process": True}


def _streamed() -> dict[str, Any]:
    return {"model": "tiny", "input": PROMPT, "background": True, "stream": True}


async def test_a_job_that_was_put_off_says_until_when(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway()
    busy = json_answer({"error": {"message": "busy", "code": "overloaded"}}, 503)
    busy.headers["Retry-After"] = "60"
    replay_server.script(busy)
    response_id = await created(gateway)
    await gateway.line(id=response_id, to="waiting")
    job = await seen(gateway, f"jobs/{response_id}")
    assert job["waits"]["why"] == "retry_after"
    assert "default has sent it away (429 or 503) once: it is tried again in" in job["waits"]["sentence"]


async def test_whoever_reads_a_response_is_shown_with_its_place_and_without_a_secret(
    start_gateway: StartGateway, replay_server: ReplayServer, tokens: dict[str, object]
) -> None:
    gateway = await start_gateway(**tokens)
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    body = {"model": "tiny", "input": PROMPT, "background": True, "stream": True}
    async with gateway.http.post(
        f"{gateway.url}/responses", json=body, headers={"Authorization": f"Bearer {KEY}"}
    ) as stream:
        await within(held.held.wait())
        response_id = (await gateway.line(event="job", to="queued"))["id"]

        async def watched() -> dict[str, Any]:
            found: dict[str, Any] = (await get(gateway, f"jobs/{response_id}", headers=bearer(ADMIN))).json()
            return found

        async def has_all() -> bool:
            now = await watched()
            if now["readers"] != 1:
                return False
            return bool(now["watching"][0]["last_seq"] == now["event_count"] - 1 > 1)

        await until(has_all)
        now = await watched()
        (one,) = now["watching"]
        assert (one["tenant"], one["peer"]) == (now["tenant"], "127.0.0.1")
        assert 0 <= one["for_s"] < 60
        reader = (await get(gateway, f"jobs/{response_id}", headers=bearer(READ))).json()
        assert reader["watching"][0].keys() == {"for_s", "last_seq", "tenant"}
        held.release.set()
        await within(stream.read())

    async def is_gone() -> bool:
        return not (await watched())["watching"]

    await until(is_gone)


async def test_a_chain_is_linked_both_ways(gateway: Gateway) -> None:
    first = await created(gateway)
    await gateway.ended(first)
    second = await created(gateway, previous_response_id=first)
    assert (await seen(gateway, f"jobs/{first}"))["chain"] == {"previous": None, "later": [second]}
    assert (await seen(gateway, f"jobs/{second}"))["chain"]["previous"] == first


async def test_content_is_not_shown_unless_the_settings_say_so(gateway: Gateway) -> None:
    response_id = await created(gateway, metadata={"canary": "meta-canary"})
    final = await gateway.ended(response_id)
    told = final["output"][-1]["content"][0]["text"]
    for path in ("overview", "history", "webhooks", "jobs", f"jobs/{response_id}"):
        body = (await get(gateway, path)).body.decode()
        assert PROMPT not in body
        assert "meta-canary" not in body
        assert told not in body
    for what in ("request", "result", "events"):
        answer = await get(gateway, f"jobs/{response_id}/{what}")
        assert (answer.status, answer.error["code"]) == (403, "content_hidden")


async def test_content_is_shown_as_it_is_where_the_settings_say_so(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**CONTENT)
    answer = await gateway.call("POST", "/responses", _body_with_a_large_number())
    response_id = answer.json()["id"]
    await gateway.ended(response_id)
    assert b"12345678901234567890123" in (await get(gateway, f"jobs/{response_id}/request")).body
    assert PROMPT.encode() in (await get(gateway, f"jobs/{response_id}/request")).body
    result = await get(gateway, f"jobs/{response_id}/result")
    mine = await gateway.call("GET", f"/responses/{response_id}")
    assert result.json() == mine.json()
    events = (await get(gateway, f"jobs/{response_id}/events")).body
    count = (await seen(gateway, f"jobs/{response_id}"))["event_count"]
    assert len(frames(events)) == count
    later = (await get(gateway, f"jobs/{response_id}/events?after={count - 3}")).body
    assert frames(later) == frames(events)[-2:]


def _body_with_a_large_number() -> bytes:
    number = b"12345678901234567890123"
    return b'{"model":"tiny","background":true,"input":"%b %b"}' % (PROMPT.encode(), number)


async def test_events_are_seen_as_they_come_and_looking_changes_nothing(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**CONTENT)
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    response_id = await created(gateway)
    await within(held.held.wait())
    async with gateway.http.get(f"{gateway.admin}/api/v1/jobs/{response_id}/events") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        seen_so_far = b""
        while b"in_progress" not in seen_so_far:
            seen_so_far += await within(answer.content.readany())
        assert (await seen(gateway, f"jobs/{response_id}"))["readers"] == 0
        assert (await seen(gateway, f"jobs/{response_id}"))["if_killed"]["why"] == "runs_again"
        held.release.set()
        rest = await within(answer.content.read())
    events = [frame for frame in frames(seen_so_far + rest) if not frame.startswith(b":")]
    assert b"response.completed" in events[-1]
    assert len(events) == (await seen(gateway, f"jobs/{response_id}"))["event_count"]


async def test_so_many_streams_may_be_open(start_gateway: StartGateway, replay_server: ReplayServer) -> None:
    gateway = await start_gateway(**CONTENT, BACKBURNER_UI__STREAMS_MAX=1)
    replay_server.script(replay("vllm/responses-stream", hold_after=6))
    response_id = await created(gateway)
    async with gateway.http.get(f"{gateway.admin}/api/v1/jobs/{response_id}/events") as answer:
        assert answer.status == 200
        assert (await get(gateway, f"jobs/{response_id}/events")).error["code"] == "too_many_streams"


# -- who may look


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, token in (("ADMIN_TOKEN", ADMIN), ("ADMIN_READ_TOKEN", READ)):
        file = tmp_path / name
        file.write_text(f"{token}\n")
        os.chmod(file, 0o600)
        found[f"BACKBURNER_SERVER__{name}_FILE"] = file
    return found


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_with_tokens_nobody_looks_without_one_and_the_reader_sees_no_address(
    start_gateway: StartGateway, tokens: dict[str, object]
) -> None:
    gateway = await start_gateway(**tokens, BACKBURNER_SERVER__ADMIN_HOST="0.0.0.0")
    for headers in ({}, bearer("wrong"), {"Authorization": READ}):
        answer = await get(gateway, "overview", headers=headers)
        assert (answer.status, answer.error["code"]) == (401, "invalid_admin_token")
    reader = (await get(gateway, "overview", headers=bearer(READ))).json()
    admin = (await get(gateway, "overview", headers=bearer(ADMIN))).json()
    assert (reader["role"], admin["role"]) == ("read", "admin")
    assert "url" not in reader["backends"][0]["replicas"][0]
    assert "url" in admin["backends"][0]["replicas"][0]
    assert ADMIN not in gateway.stderr.decode()
    assert READ not in gateway.stderr.decode()


async def test_a_token_that_is_no_utf_8_is_a_wrong_token(
    start_gateway: StartGateway, tokens: dict[str, object]
) -> None:
    gateway = await start_gateway(**tokens)
    host, port = gateway.admin.removeprefix("http://").split(":")
    for path in (b"/api/v1/overview", b"/webhooks"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\xc3\r\n\r\n" % path)
        assert (await within(reader.readline())).split()[1] == b"401", path
        writer.close()


async def test_off_loopback_and_without_a_token_nothing_is_shown(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(BACKBURNER_SERVER__ADMIN_HOST="0.0.0.0")
    answer = await get(gateway, "jobs")
    assert (answer.status, answer.error["code"]) == (403, "no_admin_token")


async def test_without_a_token_a_name_that_leads_here_is_refused(gateway: Gateway) -> None:
    for host, status in (("evil.test", 403), ("localhost:9001", 200), ("[::1]:9001", 200)):
        assert (await get(gateway, "jobs", headers={"Host": host})).status == status, host


async def test_looking_and_health_checks_leave_no_line_in_the_log(gateway: Gateway) -> None:
    response_id = await created(gateway)
    await gateway.log_of_end(response_id)
    count = len(gateway.lines)
    for _ in range(3):
        for path in ("healthz", "readyz", "metrics", "ui/", "ui/app.js", "webhooks"):
            async with gateway.http.get(f"{gateway.admin}/{path}") as answer:
                assert answer.status == 200, path
        for path in ("overview", "jobs", "history", f"jobs/{response_id}", "jobs?order=events"):
            await seen(gateway, path)
    later = await created(gateway)
    await gateway.log_of_end(later)
    assert {line.get("id") for line in gateway.lines[count:]} == {later}


async def test_what_is_not_there_is_said_so(gateway: Gateway) -> None:
    for path in ("", "nothing", "jobs/a/b/c"):
        assert (await get(gateway, path)).status == 404
    async with gateway.http.put(f"{gateway.admin}/api/v1/jobs") as answer:
        assert answer.status == 405
