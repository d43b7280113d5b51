"""What an operator does by the admin API, who may, and the line that each change leaves in the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.fleet import until
from tests.acceptance.harness import Gateway, within
from tests.acceptance.operator import ACTION, done, get, post, seen
from tests.acceptance.receivers import Answer as Taking
from tests.acceptance.receivers import Receiver
from tests.acceptance.replay import Answer, ReplayServer, replay
from tests.acceptance.test_admin_api import ADMIN, ONE_SLOT, READ, bearer, created, tokens
from tests.acceptance.test_webhooks import told

__all__ = ["tokens"]

OWN_KEY = {"BACKBURNER_UPSTREAM__API_KEY": "sk-of-the-gateway"}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as one:
        yield one


async def busy(gateway: Gateway, server: ReplayServer, waiting: int) -> tuple[Answer, str, list[str]]:
    """A job that is held, and so many that wait behind it."""
    held = server.script(replay("vllm/responses-stream", hold_after=6))
    runs = await created(gateway)
    await within(held.held.wait())
    return held, runs, [await created(gateway, model=f"m{number % 2}") for number in range(waiting)]


async def status_of(gateway: Gateway, response_id: str) -> str:
    found: str = (await seen(gateway, f"jobs/{response_id}"))["status"]
    return found


async def audit(gateway: Gateway, doing: str) -> dict[str, Any]:
    """What the log says of a change."""
    return await gateway.line(event="operator", doing=doing)


async def test_a_job_is_cancelled_once_whether_it_runs_or_waits(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    _, runs, (waits,) = await busy(gateway, replay_server, 1)
    assert await done(gateway, f"jobs/{waits}/cancel") == {"cancelled": True}
    assert await done(gateway, f"jobs/{runs}/cancel") == {"cancelled": True}
    assert await done(gateway, f"jobs/{runs}/cancel") == {"cancelled": False}
    await within((await replay_server.create(0)).gone.wait())
    for response_id in (runs, waits):
        mine = await gateway.call("GET", f"/responses/{response_id}")
        assert mine.json()["status"] == "cancelled"
    line = await audit(gateway, "cancel")
    assert (line["id"], line["count"], line["role"], line["peer"]) == (waits, 1, "admin", "127.0.0.1")
    assert (await post(gateway, "jobs/resp_unknown/cancel")).status == 404


async def test_many_are_cancelled_after_a_preview_and_only_those_that_it_has_shown(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    _, runs, waiting = await busy(gateway, replay_server, 6)
    wanted = {"state": "queued", "model": "m1"}
    preview = await done(gateway, "jobs/cancel", {"dry_run": True, "filter": wanted})
    assert (preview["count"], preview["is_all"]) == (3, True)
    assert set(preview["first"]) == set(waiting[1::2])
    assert {await status_of(gateway, each) for each in waiting} == {"queued"}
    late = await created(gateway, model="m1")
    assert (await done(gateway, f"jobs/{waiting[1]}/cancel"))["cancelled"]
    assert await done(gateway, "jobs/cancel", {"token": preview["token"]}) == {"cancelled": 2, "over": 1}
    assert {await status_of(gateway, each) for each in waiting[1::2]} == {"cancelled"}
    assert {await status_of(gateway, each) for each in (*waiting[::2], late)} == {"queued"}
    assert await status_of(gateway, runs) == "in_progress"
    line = await audit(gateway, "cancel many")
    assert (line["count"], line["chosen"]) == (2, "state=queued model=m1")
    again = await post(gateway, "jobs/cancel", {"token": preview["token"]})
    assert (again.status, again.error["param"]) == (400, "token")


async def test_a_selection_is_cancelled_in_the_same_way(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    _, _, waiting = await busy(gateway, replay_server, 3)
    preview = await done(gateway, "jobs/cancel", {"dry_run": True, "ids": waiting[:2]})
    assert preview["count"] == 2
    assert (await done(gateway, "jobs/cancel", {"token": preview["token"]}))["cancelled"] == 2
    assert (await audit(gateway, "cancel many"))["chosen"] == "ids"
    assert await status_of(gateway, waiting[2]) == "queued"


async def test_what_is_over_is_never_among_those_to_be_cancelled(gateway: Gateway) -> None:
    response_id = await created(gateway)
    await gateway.ended(response_id)
    for wanted in ({"state": "completed"}, {}, {"id": response_id}):
        preview = await done(gateway, "jobs/cancel", {"dry_run": True, "filter": wanted})
        assert preview["count"] == 0


async def test_nothing_is_cancelled_by_a_body_that_says_something_else(gateway: Gateway) -> None:
    bodies: list[Any] = [
        {},
        {"dry_run": True},
        {"filter": {}},
        {"ids": ["a"]},
        {"dry_run": False, "filter": {}},
        {"dry_run": True, "ids": [1]},
        {"dry_run": True, "filter": {"state": 1}},
        {"dry_run": True, "filter": {"colour": "red"}},
        {"token": 7},
        {"token": "x", "ids": []},
        {"token": "000000000000000-\u0000\ud7ff"},
        [],
    ]
    for body in bodies:
        assert (await post(gateway, "jobs/cancel", body)).status == 400, body


async def test_a_paused_backend_starts_nothing_and_says_so_until_it_is_resumed(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway()
    held, runs, _ = await busy(gateway, replay_server, 0)
    await done(gateway, "backends/default/pause")
    waits = await created(gateway)
    assert (await seen(gateway, f"jobs/{waits}"))["waits"]["why"] == "paused"
    (backend,) = (await seen(gateway, "overview"))["backends"]
    assert (backend["paused"], backend["halted"], backend["slots"]) == (True, "paused", 0)
    held.release.set()
    assert (await gateway.ended(runs))["status"] == "completed", "what runs goes on"
    assert await gateway.metric('backburner_jobs_waiting{backend="default",reason="paused"}') == 1
    assert (await gateway.call("POST", "/responses", {"model": "tiny", "input": "now"})).status == 200
    await done(gateway, "backends/default/resume")
    assert (await gateway.ended(waits))["status"] == "completed"
    assert (await audit(gateway, "pause"))["backend"] == "default"
    assert (await audit(gateway, "resume"))["backend"] == "default"
    assert (await post(gateway, "backends/nobody/pause")).status == 404


async def test_slots_are_changed_while_it_runs_and_given_back_to_the_settings(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    replay_server.script(*[replay("vllm/responses-stream", hold_after=6) for _ in range(3)])
    jobs = [await created(gateway) for _ in range(3)]
    await replay_server.create(0)
    assert await status_of(gateway, jobs[1]) == "queued"
    await done(gateway, "backends/default/slots", {"slots": 3})
    await replay_server.create(2)
    (backend,) = (await seen(gateway, "overview"))["backends"]
    assert (backend["capacity"], backend["slots_per_replica"], backend["slots_per_replica_default"]) == (
        3,
        3,
        1,
    )
    await done(gateway, "backends/default/slots", {"slots": None})
    (backend,) = (await seen(gateway, "overview"))["backends"]
    assert (backend["running"], backend["slots_per_replica"]) == (3, 1)
    assert (await audit(gateway, "slots"))["limit"] == 3


async def test_a_pause_and_changed_slots_outlive_the_gateway_and_say_who_and_when(
    start_gateway: StartGateway, tokens: dict[str, object]
) -> None:
    gateway = await start_gateway(**tokens)
    admin = {**ACTION, **bearer(ADMIN)}
    assert (await post(gateway, "backends/default/pause", headers=admin)).status == 200
    assert (await post(gateway, "backends/default/slots", {"slots": 5}, headers=admin)).status == 200
    await gateway.kill9()
    await gateway.restart()
    waits = await created(gateway)
    for role, by in ((ADMIN, ["127.0.0.1"] * 2), (READ, [None] * 2)):
        found = (await get(gateway, "overview", headers=bearer(role))).json()
        (backend,) = found["backends"]
        assert (backend["halted"], backend["slots_per_replica"]) == ("paused", 5)
        assert [order["doing"] for order in backend["orders"]] == ["pause", "slots"]
        assert [order.get("by") for order in backend["orders"]] == by
        assert all(0 <= found["now_ms"] - order["since_ms"] < 60_000 for order in backend["orders"])
        assert "An operator has paused the queue of default, " in backend["why"]
    assert (await gateway.line(event="order", doing="pause"))["peer"] == "127.0.0.1"
    assert (await gateway.line(event="order", doing="slots"))["limit"] == 5
    assert (await post(gateway, "backends/default/resume", headers=admin)).status == 200
    assert (await gateway.log_of_end(waits))["to"] == "completed"
    await gateway.kill9()
    await gateway.restart()
    found = (await get(gateway, "overview", headers=bearer(READ))).json()
    assert [order["doing"] for order in found["backends"][0]["orders"]] == ["slots"]


async def test_slots_that_cannot_be_are_refused(gateway: Gateway) -> None:
    for body in ({}, {"slots": 0}, {"slots": "3"}, {"slots": True}, {"slots": 1, "for": 2}):
        answer = await post(gateway, "backends/default/slots", body)
        assert (answer.status, answer.error["param"]) == (400, "slots"), body


async def test_slots_stay_above_those_that_are_kept_for_plain_requests(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(BACKBURNER_UPSTREAM__FOREGROUND_RESERVED=4)
    answer = await post(gateway, "backends/default/slots", {"slots": 4})
    assert (answer.status, answer.error["param"]) == (400, "slots")
    assert "foreground_reserved, which is 4" in answer.error["message"]


async def test_a_job_that_is_over_is_run_again_as_a_new_one_of_the_same_caller(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**OWN_KEY)
    first = await created(gateway)
    await gateway.ended(first)
    second = await created(gateway, input="And then?", previous_response_id=first, temperature=0.25)
    await gateway.ended(second)
    again = (await done(gateway, f"jobs/{second}/rerun"))["id"]
    assert again != second
    await gateway.log_of_end(again)
    sent, resent = replay_server.creates[-2:]
    assert resent.json() == sent.json()
    mine = await gateway.call("GET", f"/responses/{again}")
    assert (mine.status, mine.json()["previous_response_id"]) == (200, first)
    assert (await gateway.call("GET", f"/responses/{again}", key="sk-other")).status == 404
    assert (await audit(gateway, "rerun"))["id"] == second


async def test_a_job_is_not_run_again_before_its_end_or_without_the_credential_that_it_needs(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway()
    held, runs, _ = await busy(gateway, replay_server, 0)
    answer = await post(gateway, f"jobs/{runs}/rerun")
    assert (answer.status, answer.error["code"]) == (400, "not_over")
    held.release.set()
    await gateway.ended(runs)
    answer = await post(gateway, f"jobs/{runs}/rerun")
    assert (answer.status, answer.error["code"]) == (400, "credential_gone")
    assert (await post(gateway, "jobs/resp_unknown/rerun")).status == 404


async def test_many_are_run_again_after_a_preview_in_their_order_and_only_those_that_it_has_shown(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**OWN_KEY)
    jobs = [await created(gateway, model=f"m{number % 2}", input=f"No. {number}") for number in range(4)]
    for each in jobs:
        await gateway.ended(each)
    await done(gateway, "backends/default/pause")
    waits = await created(gateway, model="m1")
    preview = await done(gateway, "jobs/rerun", {"dry_run": True, "filter": {"model": "m1"}})
    assert (preview["count"], set(preview["first"])) == (2, {jobs[1], jobs[3]}), "not one that is live"
    assert (await post(gateway, "jobs/cancel", {"token": preview["token"]})).status == 400, "not meant so"
    again = await done(gateway, "jobs/rerun", {"token": preview["token"]})
    assert (again["rerun"], again["refused"], len(again["first"])) == (2, {}, 2)
    assert (await post(gateway, "jobs/rerun", {"token": preview["token"]})).status == 400, "once"
    assert (await done(gateway, f"jobs/{waits}/cancel"))["cancelled"]
    await done(gateway, "backends/default/slots", {"slots": 1})
    await done(gateway, "backends/default/resume")
    for each in again["first"]:
        assert (await gateway.log_of_end(each))["to"] == "completed"
    assert [call.json()["input"] for call in replay_server.creates[-2:]] == ["No. 1", "No. 3"]
    assert (await audit(gateway, "rerun many"))["count"] == 2


async def test_those_of_a_selection_that_cannot_be_run_again_are_counted_by_the_reason(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway()
    held, runs, _ = await busy(gateway, replay_server, 0)
    over = await created(gateway)
    await gateway.ended(over)
    preview = await done(gateway, "jobs/rerun", {"dry_run": True, "ids": [runs, over, "resp_unknown"]})
    again = await done(gateway, "jobs/rerun", {"token": preview["token"]})
    assert (again["rerun"], again["first"]) == (0, [])
    assert again["refused"] == {"not_over": 1, "credential_gone": 1, "not_found": 1}
    assert (await audit(gateway, "rerun many"))["count"] == 0
    held.release.set()


async def test_a_job_that_is_over_is_deleted_and_one_that_is_live_is_not(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    over = await created(gateway)
    await gateway.ended(over)
    _, runs, _ = await busy(gateway, replay_server, 0)
    assert await done(gateway, f"jobs/{over}/delete") == {"deleted": True}
    assert (await gateway.call("GET", f"/responses/{over}")).status == 404
    assert (await post(gateway, f"jobs/{over}/delete")).status == 404
    answer = await post(gateway, f"jobs/{runs}/delete")
    assert (answer.status, answer.error["code"]) == (400, "not_over")
    assert await status_of(gateway, runs) == "in_progress"
    assert (await audit(gateway, "delete"))["id"] == over


async def test_many_are_deleted_after_a_preview_and_never_one_that_is_live(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    jobs = [await created(gateway, model=f"m{number % 2}") for number in range(4)]
    for each in jobs:
        await gateway.ended(each)
    _, runs, (waits,) = await busy(gateway, replay_server, 1)
    preview = await done(gateway, "jobs/delete", {"dry_run": True, "filter": {"model": "m1"}})
    assert (preview["count"], set(preview["first"])) == (2, {jobs[1], jobs[3]})
    assert await done(gateway, "jobs/delete", {"token": preview["token"]}) == {"deleted": 2, "not_deleted": 0}
    line = await audit(gateway, "delete many")
    assert (line["count"], line["chosen"]) == (2, "model=m1")
    preview = await done(gateway, "jobs/delete", {"dry_run": True, "ids": [runs, waits, jobs[0], jobs[1]]})
    assert await done(gateway, "jobs/delete", {"token": preview["token"]}) == {"deleted": 1, "not_deleted": 3}
    left = (await seen(gateway, "jobs"))["jobs"]
    assert {job["id"] for job in left} == {runs, waits, jobs[2]}


async def test_jobs_that_wait_are_moved_to_another_tier_and_run_in_that_order(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    held, runs, waiting = await busy(gateway, replay_server, 4)
    assert await done(gateway, f"jobs/{waiting[3]}/tier", {"tier": "priority"}) == {"moved": True}
    assert await done(gateway, f"jobs/{runs}/tier", {"tier": "flex"}) == {"moved": False}
    asked = {"dry_run": True, "tier": "flex", "filter": {"model": "m0"}}
    preview = await done(gateway, "jobs/tier", asked)
    assert set(preview["first"]) == {waiting[0], waiting[2]}
    assert await done(gateway, "jobs/tier", {"token": preview["token"]}) == {"moved": 2, "started": 0}
    listed = (await seen(gateway, "jobs"))["jobs"]
    tiers = {job["id"]: job["tier"] for job in listed}
    assert [tiers[each] for each in waiting] == ["flex", "default", "flex", "priority"]
    held.release.set()
    for each in (runs, *waiting):
        await gateway.ended(each)
    started = [line["id"] for line in gateway.lines if line.get("to") == "in_progress"]
    assert started == [runs, waiting[3], waiting[1], waiting[0], waiting[2]]
    line = await audit(gateway, "tier many")
    assert (line["count"], line["chosen"], line["tier"]) == (2, "model=m0", "flex")
    line = await audit(gateway, "tier")
    assert (line["id"], line["tier"]) == (waiting[3], "priority")


async def test_a_tier_that_there_is_not_moves_nothing(gateway: Gateway) -> None:
    for path, body in (
        ("jobs/resp_x/tier", {}),
        ("jobs/resp_x/tier", {"tier": "gold"}),
        ("jobs/tier", {"dry_run": True, "filter": {}}),
        ("jobs/tier", {"dry_run": True, "filter": {}, "tier": "gold"}),
        ("jobs/tier", {"dry_run": True, "filter": {}, "tier": 2}),
        ("jobs/delete", {"dry_run": True, "filter": {}, "tier": "flex"}),
    ):
        assert (await post(gateway, path, body)).status in (400, 404), (path, body)


async def test_a_receiver_that_took_an_event_can_be_sent_it_again(
    start_gateway: StartGateway, receiver: Receiver
) -> None:
    gateway = await start_gateway(**told("x", receiver))
    response_id = await created(gateway)
    (first,) = await receiver.attempts(1)
    await gateway.line(event="webhook", id=response_id, to="delivered")
    assert (await seen(gateway, f"jobs/{response_id}"))["deliveries"] == []
    assert await done(gateway, f"jobs/{response_id}/resend") == {"sent_again": 1, "disabled": []}
    _, second = await receiver.attempts(2)
    assert (second.response_id, second.webhook_id) == (first.response_id, first.webhook_id)
    assert (await audit(gateway, "resend"))["count"] == 1


async def test_each_attempt_to_tell_is_remembered_with_its_status_and_its_time(
    start_gateway: StartGateway, receiver: Receiver
) -> None:
    url = receiver.url.replace("//", "//user:url-canary@") + "?key=url-canary"
    settings = told("x", url) | {"BACKBURNER_WEBHOOKS__RETRY_DELAYS_S": "0.1"}
    gateway = await start_gateway(**settings)
    receiver.answers += [Taking(503), Taking(409)]
    response_id = await created(gateway)
    await gateway.line(event="webhook", id=response_id, to="delivered")
    job = await seen(gateway, f"jobs/{response_id}")
    steps = [(each["endpoint"], each["attempt"], each["to"], each["reason"]) for each in job["told"]]
    assert steps == [
        ("x", 1, "waiting", "http_503"), ("x", 2, "waiting", "http_409"), ("x", 3, "delivered", "http_200"),
    ]  # fmt: skip
    times = [each["at_ms"] for each in job["told"]]
    assert times == sorted(times)
    assert abs(times[0] - job["finished_at_ms"]) < 30_000
    hooks = await seen(gateway, "webhooks")
    (endpoint,) = hooks["endpoints"]
    assert (endpoint["failure"], endpoint["failed_at_ms"]) == ("http_409", times[1])
    assert "url-canary" not in str((job, hooks))


async def test_where_nobody_is_told_nothing_is_sent_again(gateway: Gateway) -> None:
    response_id = await created(gateway)
    await gateway.ended(response_id)
    answer = await post(gateway, f"jobs/{response_id}/resend")
    assert (answer.status, answer.error["code"]) == (404, "nobody_to_tell")


async def test_a_drain_ends_the_process_in_good_order(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway()
    held, runs, _ = await busy(gateway, replay_server, 0)
    assert await done(gateway, "drain") == {"draining": True}
    await gateway.line(event="draining")
    held.release.set()
    assert await gateway.exit_status() == 0
    assert (await gateway.log_of_end(runs))["to"] == "completed"
    await audit(gateway, "drain")


# -- who may


async def test_a_page_of_another_site_can_change_nothing(gateway: Gateway) -> None:
    for headers, code in (
        ({}, "cross_site"),
        ({**ACTION, "Origin": "https://evil.test"}, "cross_site"),
        ({**ACTION, "Origin": "null"}, "cross_site"),
        ({**ACTION, "Sec-Fetch-Site": "cross-site"}, "cross_site"),
        ({**ACTION, "Sec-Fetch-Site": "same-site"}, "cross_site"),
        ({**ACTION, "Host": "rebound.test"}, "host_refused"),
    ):
        answer = await post(gateway, "backends/default/pause", headers=headers)
        assert (answer.status, answer.error["code"]) == (403, code), headers
    assert not (await seen(gateway, "overview"))["backends"][0]["paused"]


async def test_a_form_can_change_nothing_and_a_preflight_is_never_allowed(gateway: Gateway) -> None:
    url = f"{gateway.admin}/api/v1/backends/default/pause"
    async with gateway.http.post(url, data="{}", headers={**ACTION, "Content-Type": "text/plain"}) as answer:
        assert answer.status == 415
    asked = {"Origin": "https://evil.test", "Access-Control-Request-Method": "POST"}
    async with gateway.http.options(url, headers=asked) as answer:
        assert answer.status == 405
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_the_page_of_this_site_can(gateway: Gateway) -> None:
    own = {**ACTION, "Origin": gateway.admin, "Sec-Fetch-Site": "same-origin"}
    assert (await post(gateway, "backends/default/pause", headers=own)).status == 200
    assert (
        await post(gateway, "backends/default/resume", headers={**ACTION, "Origin": gateway.admin})
    ).status == 200


async def test_whoever_may_look_changes_nothing(
    start_gateway: StartGateway, tokens: dict[str, object]
) -> None:
    gateway = await start_gateway(**tokens)
    for headers, status in (({}, 401), (bearer(READ), 403), (bearer(ADMIN), 200)):
        answer = await post(gateway, "backends/default/pause", headers={**ACTION, **headers})
        assert answer.status == status
    assert (await audit(gateway, "pause"))["role"] == "admin"
    assert sum(line["event"] == "operator" for line in gateway.lines) == 1


async def test_whoever_may_look_neither_deletes_nor_moves_nor_previews(
    start_gateway: StartGateway, tokens: dict[str, object]
) -> None:
    gateway = await start_gateway(**tokens)
    response_id = await created(gateway)
    await gateway.ended(response_id)
    preview = {"dry_run": True, "filter": {}}
    for path, body in (
        (f"jobs/{response_id}/delete", {}),
        (f"jobs/{response_id}/tier", {"tier": "flex"}),
        ("jobs/delete", preview),
        ("jobs/tier", {**preview, "tier": "flex"}),
    ):
        for given, status, code in (
            ({**ACTION, **bearer(READ)}, 403, "read_only"),
            (bearer(ADMIN), 403, "cross_site"),
            (ACTION, 401, "invalid_admin_token"),
        ):
            answer = await post(gateway, path, body, headers=given)
            assert (answer.status, answer.error["code"]) == (status, code), path
    assert (await gateway.call("GET", f"/responses/{response_id}")).status == 200


async def test_a_bulk_cancel_goes_on_when_whoever_asked_for_it_hangs_up(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    _, _, waiting = await busy(gateway, replay_server, 30)
    preview = await done(gateway, "jobs/cancel", {"dry_run": True, "filter": {"state": "queued"}})
    asking = asyncio.create_task(done(gateway, "jobs/cancel", {"token": preview["token"]}))
    await gateway.line(to="cancelled")
    asking.cancel()

    async def are_cancelled() -> bool:
        return bool((await seen(gateway, "overview"))["states"]["cancelled"] == len(waiting))

    await until(are_cancelled)
