"""`backburner jobs`: the list, its forms, and how it is kept up to date."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys

import pytest

from gateway.command import jobs
from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import ROOT, Gateway, within
from tests.acceptance.replay import ReplayServer, replay
from tests.acceptance.test_admin_api import ONE_SLOT, one_runs_and_one_waits
from tests.command.asking import asked, created, following, port_of

_COLUMNS = ["ID", "STATE", "MODEL", "BACKEND", "EVENTS", "AGE", "WHY"]


async def test_filters_hold_together_in_every_form(
    start_gateway: StartGateway, replay_server: ReplayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    replay_server.script(replay("vllm/responses-error-bad-model-stream"))
    failed = await created(gateway)
    await gateway.ended(failed)
    held, runs, waits = await one_runs_and_one_waits(gateway, replay_server)

    table = await asked(gateway, "jobs")
    assert table.lines[0] == _COLUMNS
    assert [line[:2] for line in table.lines[1:]] == [
        [waits, "queued"],
        [runs, "in_progress"],
        [failed, "failed"],
    ]
    assert [line[-1] for line in table.lines[1:]] == ["slot", "-", "model_not_found"]
    assert "\x1b" not in table.out

    wide = await asked(gateway, "jobs", "-o", "wide", "--state", "live", "--model", "tiny")
    assert {"TENANT", "TIER", "ATTEMPT", "SILENT"} <= set(wide.lines[0])
    assert [line[0] for line in wide.lines[1:]] == [runs]

    names = await asked(gateway, "jobs", "-o", "name", "--state", "queued,failed", "--order", "oldest")
    assert names.out.split() == [failed, waits]

    one = (await asked(gateway, "jobs", "-o", "json", "--limit", "1", "--backend", "default")).json()
    assert [job["id"] for job in one["jobs"]] == [waits]
    assert one["next"] is not None
    tenant = one["jobs"][0]["tenant"]
    assert (await asked(gateway, "jobs", "-o", "name", "--tenant", tenant)).out.split() == [waits]

    none = await asked(gateway, "jobs", "--older", "5m")
    assert (none.status, none.lines) == (0, [_COLUMNS])
    assert "there is no such response" in none.err
    more = await asked(gateway, "jobs", "--limit", "2")
    assert "there may be more" in more.err
    monkeypatch.setattr(jobs, "_PAGE_MAX", 1)
    pages = await asked(gateway, "jobs", "-o", "name")
    assert pages.out.split() == [waits, runs, failed], "from several pages of the API"
    status, err = await _into_a_reader_that_has_enough("jobs", "--admin-port", port_of(gateway))
    assert (status, err) == ("0", "")
    wrong = await asked(gateway, "jobs", "--state", "sleeping")
    assert (wrong.status, wrong.out) == (1, "")
    assert "state must be some of queued" in wrong.err
    held.release.set()


async def _into_a_reader_that_has_enough(*words: str) -> tuple[str, str]:
    """The exit status of the command before a pipe that nobody reads, and what it says."""
    command = shlex.join([sys.executable, "-m", "gateway", *words])
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f'{{ {command}; echo "$?" >&2; }} | true'),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await within(process.communicate())
    *said, status = err.decode().splitlines()
    return status, "".join(said)


async def test_without_a_terminal_watching_writes_a_line_for_each_change(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    held, runs, waits = await one_runs_and_one_waits(gateway, replay_server)
    flags = ("--admin-port", port_of(gateway), "--every", "100ms")
    async with (
        following("jobs", "-w", *flags) as lines,
        following("jobs", "-w", "-o", "json", *flags) as events,
    ):
        assert lines.stdout is not None
        assert events.stdout is not None
        said = [(await within(lines.stdout.readline())).split() for _ in range(3)]
        assert said[0] == [name.encode() for name in _COLUMNS]
        assert {(line[0].decode(), line[1].decode()) for line in said[1:]} == {
            (runs, "in_progress"),
            (waits, "queued"),
        }
        for _ in range(2):
            await within(events.stdout.readline())
        held.release.set()
        ends: dict[str, str] = {}
        while ends.get(waits) != "completed":
            job = json.loads(await within(events.stdout.readline()))
            ends[job["id"]] = job["status"]
        assert ends[runs] == "completed"
        for process in (lines, events):
            process.send_signal(signal.SIGINT)
            assert await within(process.wait()) == 130
            assert process.stderr is not None
            assert await within(process.stderr.read()) == b""


async def test_watching_goes_on_when_the_gateway_comes_back(gateway: Gateway) -> None:
    response_id = await created(gateway)
    await gateway.ended(response_id)
    port = port_of(gateway)
    async with following("jobs", "-w", "--admin-port", port, "--every", "100ms", "-o", "name") as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert (await within(watch.stdout.readline())).decode().strip() == response_id
        await gateway.kill9()
        assert b"; looking again every 0.1 s" in await within(watch.stderr.readline())
        gateway.flags = ("--admin-port", port)
        await gateway.restart()
        assert b"the gateway is back" in await within(watch.stderr.readline())
        later = await created(gateway)
        assert (await within(watch.stdout.readline())).decode().strip() == later
