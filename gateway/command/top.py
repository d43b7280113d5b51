"""`backburner top`: how it stands, kept up to date: backends, callers, and the responses that are oldest."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Any

from gateway.command import jobs, screen, webhooks
from gateway.command.admin import API, Admin, NotReached, ask, look
from gateway.command.screen import Cell, Grid, age
from gateway.command.status import DONE

_BARS = " ▁▂▃▄▅▆▇█"
_BACKENDS = ("BACKEND", "RUNNING", "SLOTS", "WAITING", "OLDEST", "API", "REPLICAS", "LAST 5 MIN", "WAITS FOR")
_OLDEST = 10


def run(admin: Admin, args: Namespace) -> int:
    """Print it: on a terminal again and again, else once. Raises: NotDone."""
    if args.output == "json":
        screen.write(ask(admin, f"{API}overview", limit_s=15).decode())
        return DONE
    if args.once or not screen.is_terminal():
        screen.show(*_grids(admin, is_short=screen.is_terminal()))
        return DONE
    with screen.kept_up_to_date(is_whole_screen=True) as draw:
        grids, trouble = _grids(admin, is_short=True), list[Grid]()
        for _ in screen.again_and_again(args.every):
            draw(*trouble, *grids)
            try:
                grids, trouble = _grids(admin, is_short=True), []
            except NotReached as error:
                trouble = [Grid(("",), [[Cell(f"{error} This is how it was:", "red")]])]
    return DONE


def _grids(admin: Admin, *, is_short: bool) -> list[Grid]:
    now = look(admin, "overview")
    oldest = look(admin, "jobs", {"state": "live", "order": "oldest", "limit": _OLDEST})
    found = [
        Grid(("", ""), [*_head(now)]),
        Grid(_BACKENDS, [_backend(each) for each in now["backends"]], "Backends"),
    ]
    if whys := [each["why"] for each in now["backends"] if each["why"]]:
        found.append(Grid(("",), [[Cell(why, "red")] for why in whys]))
    receivers = look(admin, "webhooks")["endpoints"]
    if untold := [each for each in receivers if each["down"] or each["disabled_for_s"] is not None]:
        found.append(
            Grid(webhooks.RECEIVERS, [*map(webhooks.receiver, untold)], "Webhooks that do not arrive")
        )
    if now["tenants"]:
        rows = [[each["tenant"], str(each["running"]), str(each["waiting"])] for each in now["tenants"][:5]]
        found.append(Grid(("CALLER", "RUNNING", "WAITING"), rows, "Callers with the most"))
    if oldest["jobs"]:
        table = jobs.grid(oldest, is_wide=False, is_short=is_short)
        found.append(Grid(table.columns, table.rows, "The oldest that are not over"))
    return found


def _head(now: dict[str, Any]) -> Iterator[Sequence[Cell | str]]:
    state = "draining" if now["draining"] else "up"
    yield "Gateway", Cell(f"{state}, version {now['version']}", "yellow" if now["draining"] else "")
    commit = "" if now["commit_s"] is None else f", a commit takes {now['commit_s'] * 1000:.1f} ms"
    yield "Store", Cell(f"{now['store']}{commit}", "" if now["store"] == "ok" else "red")
    waits = "" if now["oldest_waiting_s"] is None else f", the oldest for {age(now['oldest_waiting_s'])}"
    yield "Responses", f"{now['running']} running, {now['waiting']} waiting{waits}"
    yield "States", ", ".join(f"{count} {name}" for name, count in now["states"].items() if count) or "none"


def _backend(found: dict[str, Any]) -> Sequence[Cell | str]:
    replicas = found["replicas"]
    healthy = sum(bool(each.get("healthy", True)) for each in replicas)
    reasons = ", ".join(f"{reason}: {count}" for reason, count in found["reasons"].items())
    is_full = found["running"] >= found["capacity"]
    return [
        found["name"],
        Cell(str(found["running"]), "yellow" if is_full else ""),
        str(found["capacity"]),
        str(found["waiting"]),
        "-" if found["oldest_waiting_s"] is None else age(found["oldest_waiting_s"]),
        found["api"],
        Cell(f"{healthy}/{len(replicas)}", "" if healthy == len(replicas) else "red"),
        _spark(found["spark"]["running"]),
        Cell(reasons or "-", "red" if found["halted"] else "yellow" if reasons else "bright_black"),
    ]


def _spark(points: Sequence[float | None]) -> str:
    """A small chart of one character for each step."""
    highest = max((point for point in points if point), default=0.0)
    if not highest:
        return "-"
    return "".join(" " if point is None else _BARS[round(point / highest * 8)] for point in points)
