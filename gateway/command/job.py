"""`backburner job ID`: all about one response that is no content, and why it waits."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from gateway.command import screen
from gateway.command.admin import API, Admin, ask, part
from gateway.command.ids import whole
from gateway.command.screen import Cell, Grid, age, span, styled_status
from gateway.command.status import DONE

_TOLD = ("upstream_status", "code", "reason", "replica", "attempt", "is_earlier_process")
"""What a step of the timeline may say of itself, the most telling first."""


def run(admin: Admin, args: Namespace) -> int:
    """Print it. Raises: NotDone."""
    body = ask(admin, f"{API}jobs/{part(whole(admin, args.id))}", limit_s=15)
    if args.output == "json":
        screen.write(body.decode())
        return DONE
    job = json.loads(body)
    screen.show(*_grids(job))
    return DONE


def _grids(job: dict[str, Any]) -> Iterator[Grid]:
    yield Grid(("", ""), [[Cell(name, "bold"), value] for name, value in _facts(job)])
    yield Grid(("TIME", "STATE", "FOR", "DETAILS"), [_step(step) for step in job["timeline"]], "Timeline")
    if job["watching"]:
        rows = [_reader(each) for each in job["watching"]]
        yield Grid(("CALLER", "SINCE", "HAS EVENTS UP TO", "FROM"), rows, "Who reads it now")
    if job["told"]:
        rows = [_attempt(each) for each in job["told"]]
        yield Grid(("TIME", "ENDPOINT", "ATTEMPT", "ANSWER", "RESULT"), rows, "Webhooks that were sent")
    if job["deliveries"]:
        rows = [
            [each["endpoint"], each["event"], str(each["attempts"]), each["failure"] or "-"]
            for each in job["deliveries"]
        ]
        yield Grid(("ENDPOINT", "EVENT", "ATTEMPTS", "LAST FAILURE"), rows, "To be told")


def _facts(job: dict[str, Any]) -> Iterator[tuple[str, Cell | str]]:
    now_ms = job["now_ms"]
    yield "Id", job["id"]
    yield "State", styled_status(job)
    if job["error"]:
        yield "Error", Cell(job["error"], "red")
    if job["waits"] is not None:
        yield "Waits", Cell(job["waits"]["sentence"], "yellow")
    yield "If the gateway dies now", job["if_killed"]["sentence"]
    yield "Model", job["model"] or "-"
    yield "Backend", job["backend"] + ("" if job["replica"] is None else f", replica {job['replica']}")
    yield "Tenant", f"{job['tenant']}, tier {job['tier']}"
    yield "Accepted", f"{_clock(job['created_at_ms'])}, {span((now_ms - job['created_at_ms']) / 1000)} ago"
    if job["finished_at_ms"] is None:
        yield "Deadline", f"{_clock(job['deadline_ms'])}, in {span((job['deadline_ms'] - now_ms) / 1000)}"
    elif job["expires_at_ms"] is not None:
        yield "Kept until", _clock(job["expires_at_ms"])
    yield "Attempts", f"{job['attempt']}, and sent away {job['put_offs']} times"
    yield "Events", _events(job)
    yield "Readers", str(job["readers"])
    for name, key in (("Request id", "request"), ("Request id at the backend", "upstream_request")):
        if job[key]:
            yield name, job[key]
    if job["chain"]["previous"]:
        yield "Goes on from", job["chain"]["previous"]
    if job["chain"]["later"]:
        yield "Is gone on from by", ", ".join(job["chain"]["later"])


def _events(job: dict[str, Any]) -> str:
    said = f"{job['event_count']}, {job['events_bytes']} bytes stored"
    if job["events_per_s"] is not None:
        said += f", {job['events_per_s']:g} a second"
    return said if job["silent_s"] is None else f"{said}, the last one {age(job['silent_s'])} ago"


def _step(step: dict[str, Any]) -> list[Cell | str]:
    details = ", ".join(
        name.replace("_", " ") if step[name] is True else f"{name.replace('_', ' ')} {step[name]}"
        for name in _TOLD
        if step.get(name) not in (None, False)
    )
    state = Cell(step["to"], screen.STYLES.get(step["to"], ""))
    return [_clock(step["at_ms"]), state, f"{step['for_s']:.1f}s", details or "-"]


def _reader(one: dict[str, Any]) -> list[Cell | str]:
    has = str(one["last_seq"]) if one["last_seq"] >= 0 else "none yet"
    return [one["tenant"], f"{age(one['for_s'])} ago", has, one.get("peer") or "-"]


def _attempt(one: dict[str, Any]) -> list[Cell | str]:
    result = Cell(one["to"], "green" if one["to"] == "delivered" else "red")
    return [_clock(one["at_ms"]), one["endpoint"], str(one.get("attempt", "-")), one["reason"], result]


def _clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%H:%M:%S")
