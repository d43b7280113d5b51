"""The commands that change something, and the line that each leaves in the gateway's log."""

from __future__ import annotations

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, within
from tests.acceptance.operator import seen
from tests.acceptance.replay import ReplayServer, replay
from tests.acceptance.test_admin_actions import OWN_KEY, audit, busy, status_of
from tests.acceptance.test_admin_api import ONE_SLOT
from tests.command.asking import asked, created, following, port_of, terminal


async def test_responses_are_cancelled_by_their_ids_and_by_filters_after_a_look(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    _, runs, waiting = await busy(gateway, replay_server, 6)
    done = await asked(gateway, "cancel", waiting[0][:14], waiting[1], "resp_nobody")
    assert done.status == 1
    assert done.out == f"{waiting[0]} cancelled\n{waiting[1]} cancelled\n"
    assert "resp_nobody: there is no response whose id begins with resp_nobody" in done.err
    assert (await audit(gateway, "cancel"))["count"] == 1
    again = await asked(gateway, "cancel", waiting[0], "-o", "json")
    assert (again.status, again.json()) == (0, {"id": waiting[0], "cancelled": False})

    match = ("--state", "queued", "--model", "m1")
    shown = await asked(gateway, "cancel", *match, "--dry-run")
    assert (shown.status, shown.out[:34]) == (0, "2 responses would be cancelled (re")
    unconfirmed = await asked(gateway, "cancel", *match)
    assert (unconfirmed.status, unconfirmed.out) == (1, "")
    assert "--yes confirms it" in unconfirmed.err
    async with terminal("cancel", *match, "--admin-port", port_of(gateway)) as screen:
        await screen.shows("[y/N]")
        screen.type("n\n")
        assert await screen.status() == 1
        assert "nothing was cancelled" in screen.text
    assert [await status_of(gateway, each) for each in waiting[2:]] == ["queued"] * 4
    done = await asked(gateway, "cancel", *match, "--yes")
    assert (done.status, done.out) == (0, "2 responses cancelled\n")
    assert [await status_of(gateway, each) for each in waiting[2:]] == ["queued", "cancelled"] * 2
    assert (await audit(gateway, "cancel many"))["count"] == 2

    nothing = await asked(gateway, "cancel")
    assert nothing.status == 1
    assert "say which" in nothing.err
    both = await asked(gateway, "cancel", runs, "--all")
    assert both.status == 1
    assert (await asked(gateway, "cancel", "--all", "-y")).status == 0
    assert (await asked(gateway, "jobs", "-o", "name", "--state", "live")).out == ""


async def test_a_response_is_run_again_and_a_backend_paused_and_resumed(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(**{"BACKBURNER_UPSTREAM__API_KEY": OWN_KEY["BACKBURNER_UPSTREAM__API_KEY"]})
    first = await created(gateway)
    await gateway.ended(first)
    paused = await asked(gateway, "pause", "default")
    assert (paused.status, "starts no more" in paused.out) == (0, True)
    assert (await audit(gateway, "pause"))["backend"] == "default"
    again = await asked(gateway, "rerun", first[:14], "-o", "json")
    assert again.status == 0
    assert again.json()["of"] == first
    later = again.json()["id"]
    assert (await seen(gateway, f"jobs/{later}"))["waits"]["why"] == "paused"
    early = await asked(gateway, "rerun", later)
    assert (early.status, early.out) == (1, "")
    assert "It is not over yet" in early.err
    resumed = await asked(gateway, "resume", "default", "-o", "json")
    assert resumed.json() == {"backend": "default", "paused": False}
    assert (await gateway.log_of_end(later))["to"] == "completed"
    assert (await audit(gateway, "rerun"))["id"] == first
    assert (await audit(gateway, "resume"))["role"] == "admin"
    unknown = await asked(gateway, "pause", "nobody")
    assert (unknown.status, unknown.err) == (1, "backburner: No backend of this name; there are default.\n")


async def test_many_are_run_again_by_filters_after_a_look(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(BACKBURNER_UPSTREAM__API_KEY="sk-of-the-gateway")
    jobs = [await created(gateway, model=f"m{number % 2}") for number in range(4)]
    for each in jobs:
        await gateway.ended(each)
    look = await asked(gateway, "rerun", "--model", "m1", "--dry-run")
    assert look.out.startswith("2 responses would be run again (")
    unasked = await asked(gateway, "rerun", "--model", "m1")
    assert (unasked.status, "--yes confirms it" in unasked.err) == (1, True)
    again = await asked(gateway, "rerun", "--model", "m1", "--yes")
    assert (again.status, again.out) == (0, "2 responses run again\n")
    assert (await audit(gateway, "rerun many"))["count"] == 2
    for words in ((), (jobs[0], "--model", "m1")):
        unclear = await asked(gateway, "rerun", *words)
        assert (unclear.status, "say which" in unclear.err) == (1, True)


async def test_responses_are_deleted_by_their_ids_and_by_filters_after_a_look(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    jobs = [await created(gateway, model=f"m{number % 2}") for number in range(4)]
    for each in jobs:
        await gateway.ended(each)
    _, runs, _ = await busy(gateway, replay_server, 0)
    done = await asked(gateway, "delete", jobs[0][:17], runs)
    assert (done.status, done.out) == (1, f"{jobs[0]} deleted\n")
    assert "It is not over yet" in done.err
    look = await asked(gateway, "delete", "--model", "m1", "--dry-run")
    assert look.out.startswith("2 responses would be deleted (")
    done = await asked(gateway, "delete", "--model", "m1", "--yes")
    assert (done.status, done.out) == (0, "2 responses deleted\n")
    assert (await audit(gateway, "delete many"))["chosen"] == "model=m1"
    left = (await asked(gateway, "jobs", "-o", "name")).out.split()
    assert set(left) == {runs, jobs[2]}
    assert "say which: ids, or filters" in (await asked(gateway, "delete")).err


async def test_queued_responses_are_moved_to_another_tier_by_ids_and_by_filters(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    _, runs, waiting = await busy(gateway, replay_server, 3)
    done = await asked(gateway, "tier", "priority", waiting[2], runs)
    assert (done.status, done.out) == (0, f"{waiting[2]} moved\n{runs} had been started, or was over\n")
    done = await asked(gateway, "tier", "flex", "--model", "m0", "--yes", "-o", "json")
    assert done.json() == {"is_all": True, "moved": 2, "started": 0}
    tiers = {job["id"]: job["tier"] for job in (await asked(gateway, "jobs", "-o", "json")).json()["jobs"]}
    assert [tiers[each] for each in waiting] == ["flex", "default", "flex"]
    line = await audit(gateway, "tier many")
    assert (line["tier"], line["chosen"], line["count"]) == ("flex", "model=m0", 2)


async def test_drain_waits_for_what_runs_and_then_the_gateway_has_stopped(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    await created(gateway)
    await within(held.held.wait())
    async with following("drain", "--wait", "--admin-port", port_of(gateway)) as drain:
        assert drain.stderr is not None
        assert drain.stdout is not None
        assert b"takes no more responses" in await within(drain.stdout.readline())
        await gateway.line(event="draining")
        assert b"1 response still running" in await within(drain.stderr.readline())
        assert drain.returncode is None
        held.release.set()
        assert await within(drain.wait()) == 0
        assert b"it has stopped" in await drain.stderr.read()
    assert await gateway.exit_status() == 0
    assert await gateway.line(event="operator", doing="drain")
