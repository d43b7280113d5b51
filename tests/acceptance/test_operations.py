"""The admin port, the log, the metrics, and what must never be found in any of them or on disk."""

from __future__ import annotations

import asyncio
import hashlib
import resource
from pathlib import Path

import pytest
from openai import NotFoundError

from gateway import process
from gateway.config import Settings
from tests.acceptance.conftest import StartGateway
from tests.acceptance.fleet import until
from tests.acceptance.harness import KEY, WAIT_S, Gateway, within
from tests.acceptance.replay import ReplayServer, json_answer, replay

PROMPT = "canary-prompt-7f3a91"
OUTPUT = "canary-output-5b22e0"
HEADER = "canary-header-c0ffee"
QUERY = "canary-query-99aa01"


def _answer(text: str) -> dict[str, object]:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return {"id": "resp_1", "object": "response", "status": "completed", "model": "tiny", "output": [item]}


def _files(database: Path) -> bytes:
    """All bytes of the database, its log and its shared memory."""
    paths = sorted(database.parent.glob(f"{database.name}*"))
    assert database in paths
    return b"".join(path.read_bytes() for path in paths)


async def test_the_admin_port_tells_health_readiness_and_metrics(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    for path, status in (("/healthz", "alive"), ("/readyz", "ready")):
        async with gateway.http.get(f"{gateway.admin}{path}") as answer:
            assert (answer.status, (await answer.json())["status"]) == (200, status)
    async with gateway.http.get(f"{gateway.admin}/v1/responses/x") as answer:
        assert answer.status == 404
    async with gateway.http.post(f"{gateway.admin}/metrics") as answer:
        assert answer.status == 405
    held = replay_server.script(
        replay("vllm/responses-stream", hold_after=6), replay("vllm/responses-error-bad-model-stream")
    )
    client = gateway.client()
    stream = await client.responses.create(model="tiny", input="A", background=True, stream=True)
    await within(held.held.wait())
    assert await gateway.metric('backburner_jobs{status="in_progress"}') == 1
    assert await gateway.metric("backburner_running") == 1
    for gauge, value in {"running": 1, "demand": 1, "slots": 256}.items():
        assert await gateway.metric(f'backburner_backend_{gauge}{{backend="default"}}') == value
    assert await gateway.metric("backburner_followers") == 1
    failing = await client.responses.create(model="tiny", input="B", background=True)
    await gateway.ended(failing.id)
    held.release.set()
    events = [event async for event in stream]
    await client.responses.create(model="tiny", input="C")
    with pytest.raises(NotFoundError):
        await client.responses.retrieve("resp_" + "0" * 48)
    moved = {
        'backburner_jobs{status="completed"}': 1,
        'backburner_jobs{status="failed"}': 1,
        'backburner_jobs_accepted_total{backend="default"}': 2,
        'backburner_jobs_finished_total{backend="default",code="",outcome="completed"}': 1,
        'backburner_jobs_finished_total{backend="default",code="model_not_found",outcome="failed"}': 1,
        'backburner_run_seconds_count{backend="default",outcome="completed"}': 1,
        'backburner_replays_total{position="create"}': 1,
        'backburner_passthrough_requests_total{method="POST",status="200"}': 1,
        'backburner_requests_refused_total{status="404"}': 1,
        'backburner_queue_wait_seconds_count{backend="default"}': 2,
        'backburner_ttft_seconds_count{backend="default"}': 1,
        "backburner_running": 0,
        "backburner_followers": 0,
        "backburner_draining": 0,
    }
    assert {name: await gateway.metric(name) for name in moved} == moved
    assert await gateway.metric("backburner_events_total") >= len(events) - 3
    assert await gateway.metric("backburner_commit_seconds_count") >= 4
    assert await gateway.metric('backburner_database_bytes{file="db"}') > 0
    assert await gateway.metric('backburner_durability_info{level="disk"}') == 1
    assert await gateway.metric("backburner_loop_lag_seconds_count") >= 1
    assert await gateway.metric('backburner_loop_lag_seconds_bucket{le="5.0"}') >= 1
    assert await gateway.metric("process_resident_memory_bytes") > 2**20
    assert await gateway.metric("process_open_fds") > 5


async def test_the_gateway_takes_as_many_file_descriptors_as_it_may_and_says_so(
    replay_server: ReplayServer, tmp_path: Path
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gateway = Gateway(replay_server.url, tmp_path / "gateway.db")
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))  # what it will inherit
    try:
        await gateway.start()
        assert (await gateway.line(event="listening"))["open_files_max"] == hard
        assert await gateway.metric("process_max_fds") == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        await gateway.close()


def test_too_few_file_descriptors_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[dict[str, object]] = []
    monkeypatch.setattr(process, "line", lambda event, **fields: warnings.append({"event": event, **fields}))
    upstream = {"url": "http://127.0.0.1:8000/v1", "concurrency_max": 100}
    settings = Settings.model_validate({"upstream": upstream, "server": {"connections_max": 500}})
    process.warn_of_few_files(settings, 2000)
    assert warnings == []
    process.warn_of_few_files(settings, 600)
    (warning,) = warnings
    assert (warning["event"], warning["limit"]) == ("few_open_files", 600)
    defaults = Settings.model_validate({"upstream": {"url": "http://127.0.0.1:8000/v1"}})
    process.warn_of_few_files(defaults, 20_000)  # 320 short of two numbers that nobody has asked for
    assert len(warnings) == 1
    process.warn_of_few_files(defaults, 1024)
    assert len(warnings) == 2


async def test_a_start_with_defaults_warns_of_nothing(gateway: Gateway) -> None:
    assert [line for line in gateway.lines if line["level"] != "info"] == []


async def test_every_transition_is_one_line_with_id_and_reason(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=4))
    client = gateway.client()
    created = await client.responses.create(model="tiny", input="A", background=True)
    await within(held.held.wait())
    await client.responses.cancel(created.id)
    await client.responses.delete(created.id)
    await gateway.line(id=created.id, to="deleted")
    told = [line for line in gateway.lines if line.get("id") == created.id]
    assert [line["to"] for line in told] == ["queued", "in_progress", "cancelled", "deleted"]
    assert told[2]["reason"] == "cancelled"
    assert {line["event"] for line in told} == {"job"}


async def test_the_lines_of_a_job_say_where_it_went_and_how_it_was_answered(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(BACKBURNER_BACKGROUND__ATTEMPTS_MAX=2)
    replay_server.script(
        json_answer({"error": {"message": "Later."}}, 500), json_answer({"error": {"message": "No."}}, 422)
    )
    created = await gateway.call("POST", "/responses", {"model": "tiny", "input": "A", "background": True})
    response_id = created.json()["id"]
    await gateway.ended(response_id)
    told = [line for line in gateway.lines if line.get("id") == response_id]
    moves = ["queued", "in_progress", "waiting", "in_progress", "failed"]
    assert [line["to"] for line in told] == moves
    for line in told:
        assert (line["backend"], line["model"]) == ("default", "tiny")
        assert line["request"] == created.headers["x-request-id"]
    assert [line.get("attempt") for line in told] == [None, 1, 1, 2, 2]
    assert [line.get("upstream_status") for line in told] == [None, None, 500, 500, 422]
    assert {line.get("replica") for line in told[2:]} == {0}
    assert told[-1]["upstream_request"] == replay_server.creates[-1].header("x-request-id")


async def test_after_a_restart_the_lines_of_a_job_say_what_is_known_without_the_create(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway()
    held = replay_server.script(replay("vllm/responses-stream", hold_after=0))
    created = await gateway.client().responses.create(model="tiny", input="A", background=True)
    await within(held.held.wait())
    await gateway.kill9()
    await gateway.restart()
    end = await gateway.log_of_end(created.id)
    assert (end["backend"], end["model"], end["attempt"], end["upstream_status"]) == (
        "default",
        "tiny",
        2,
        200,
    )
    assert "request" not in end


async def test_a_caller_that_is_sent_away_is_named_once_and_then_counted(
    start_gateway: StartGateway, replay_server: ReplayServer, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{hashlib.sha256(KEY.encode()).hexdigest()} team-a\n")
    keys.chmod(0o600)
    gateway = await start_gateway(
        BACKBURNER_TENANTS__MODE="static_keys",
        BACKBURNER_TENANTS__KEYS_FILE=keys,
        BACKBURNER_UPSTREAM__CONCURRENCY_MAX=1,
        BACKBURNER_BACKGROUND__QUEUE_PER_TENANT_MAX=1,
    )
    held = replay_server.script(replay("vllm/responses-stream", hold_after=0))
    body = {"model": "tiny", "input": "A", "background": True}
    first = (await gateway.call("POST", "/responses", body)).json()["id"]
    await within(held.held.wait())
    assert (await gateway.call("POST", "/responses", body)).status == 200
    statuses = [(await gateway.call("POST", "/responses", body)).status for _ in range(5)]
    assert statuses == [429] * 5
    told = await gateway.line(event="caller_refused")
    assert (told["tenant_name"], told["code"], told["count"]) == ("team-a", "rate_limit_exceeded", 1)
    assert told["tenant"] == (await gateway.line(id=first, to="queued"))["tenant"]
    assert sum(line["event"] == "caller_refused" for line in gateway.lines) == 1
    held.release.set()


async def test_no_credential_and_no_content_is_told_to_anybody_else(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    """Canaries in every place that a client and a model server can write to."""
    client = gateway.client()
    headers = {"X-Vendor-Key": HEADER}
    replay_server.script(
        json_answer(_answer(OUTPUT)),
        json_answer({"error": {"message": f"Bad key {KEY} for tiny"}}, 401),
        json_answer(_answer(OUTPUT)),
    )
    done = await client.responses.create(model="tiny", input=PROMPT, background=True, extra_headers=headers)
    assert OUTPUT in str(await gateway.ended(done.id))
    refused = await client.responses.create(model="tiny", input=PROMPT, background=True)
    failed = await gateway.ended(refused.id)
    assert failed["error"]["message"] == "Bad key *** for tiny"
    await client.responses.create(model="tiny", input=PROMPT, extra_query={"q": QUERY})
    errors = [
        await gateway.call("POST", "/responses", {"background": True, "input": PROMPT, "store": PROMPT}),
        await gateway.call("GET", f"/responses/resp_x?stream={QUERY}"),
        await gateway.call("GET", f"/responses/{done.id}?stream={QUERY}"),
        await gateway.call("POST", "/responses", f'{{"background": true, "{PROMPT}'.encode()),
    ]
    async with gateway.http.get(f"{gateway.admin}/metrics") as answer:
        metrics = await answer.read()
    on_disk = _files(gateway.database)
    assert await gateway.stop() == 0
    secrets = (KEY, KEY.removeprefix("sk-"), HEADER)
    for place, text in {
        "log": bytes(gateway.stderr),
        "metrics": metrics,
        "errors": b"".join(error.body for error in errors),
    }.items():
        for canary in (*secrets, PROMPT, OUTPUT, QUERY):
            assert canary.encode() not in text, (place, canary)
    for found in (on_disk, _files(gateway.database)):
        assert not [secret for secret in secrets if secret.encode() in found]
        assert OUTPUT.encode() in found  # so the search would have found the others


async def test_an_expired_response_is_gone_and_its_bytes_leave_the_files(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--retention-s", "1", BACKBURNER_STORE__SWEEP_INTERVAL_S="1")
    replay_server.script(json_answer(_answer(OUTPUT)))
    client = gateway.client()
    created = await client.responses.create(model="tiny", input=PROMPT, background=True, stream=True)
    events = [event async for event in created]
    first = events[0]
    assert first.type == "response.created"
    assert PROMPT.encode() in _files(gateway.database)
    path = f"/responses/{first.response.id}"
    async with _deadline():
        while (gone := await gateway.call("GET", path)).status == 200:
            pass
    assert gone.status == 404
    assert gone.error["message"] == f"Response with id '{first.response.id}' not found."
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(first.response.id, stream=True)
    async with _deadline():
        while not await gateway.metric("backburner_responses_swept_total"):
            pass
    for canary in (PROMPT, OUTPUT, first.response.id):
        assert canary.encode() not in _files(gateway.database)


async def test_a_deleted_responses_bytes_leave_the_files(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(BACKBURNER_STORE__SWEEP_INTERVAL_S="1")
    replay_server.script(json_answer(_answer(OUTPUT)))
    client = gateway.client()
    created = await client.responses.create(model="tiny", input=PROMPT, background=True)
    await gateway.ended(created.id)
    await client.responses.delete(created.id)
    async with _deadline():
        while not await gateway.metric("backburner_responses_swept_total"):
            pass
    for canary in (PROMPT, OUTPUT, created.id):
        assert canary.encode() not in _files(gateway.database)


async def test_the_database_is_readable_by_its_owner_only(gateway: Gateway) -> None:
    for path in gateway.database.parent.glob(f"{gateway.database.name}*"):
        assert path.stat().st_mode & 0o077 == 0, path


def _deadline() -> asyncio.Timeout:
    """Around polling: each turn of it is a request, and the last one ends it."""
    return asyncio.timeout(WAIT_S)


async def test_a_dead_backend_a_flooding_caller_and_a_hanging_response_are_each_named(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    """What an SRE sees of them without anything but the log and the metrics."""
    limits = {"BACKBURNER_BACKGROUND__QUEUE_PER_TENANT_MAX": 2, "BACKBURNER_BACKGROUND__SILENT_AFTER_S": 0.3}
    gateway = await start_gateway(**limits, BACKBURNER_UPSTREAM__HEALTH_INTERVAL_S=0.2)
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    client = gateway.client()
    hanging = await client.responses.create(model="tiny", input="A", background=True)
    await within(held.held.wait())
    said = await gateway.line(event="job", id=hanging.id, to="silent")
    assert (said["backend"], said["model"], said["upstream_status"]) == ("default", "tiny", 200)
    silent = 'backburner_running_silent{backend="default"}'
    assert await gateway.metric(silent) == 1
    held.release.set()
    await gateway.ended(hanging.id)

    async def is_over() -> bool:
        return await gateway.metric(silent) == 0

    await until(is_over)
    await replay_server.stop()
    said = await gateway.line(event="replica", check="unreachable")
    assert (said["backend"], said["healthy"]) == ("default", False)
    assert await gateway.metric('backburner_replica_up{backend="default",replica="0"}') == 0

    ask = {"model": "tiny", "input": "A", "background": True}
    async with asyncio.timeout(WAIT_S):  # some are tried first, and leave the queue for that
        while (await gateway.call("POST", "/responses", ask)).status != 429:
            pass
    said = await gateway.line(event="caller_refused", code="rate_limit_exceeded")
    assert len(said["tenant"]) == 8
    assert await gateway.metric('backburner_creates_refused_total{reason="tenant_queue_full"}') >= 1
