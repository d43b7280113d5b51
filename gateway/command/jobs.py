"""`backburner jobs`: which responses there are, by filters that hold together, once or kept up to date."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Any

from gateway.command import screen
from gateway.command.admin import Admin, NotReached, look
from gateway.command.ids import short
from gateway.command.screen import Cell, Grid, age, styled_status
from gateway.command.status import DONE

FILTERS = ("state", "model", "backend", "tenant", "error", "older", "newer")
_PAGE_MAX = 200
_LOOKS_MAX = 50
"""Each goes through 10,000 jobs at most."""
_COLUMNS = ("ID", "STATE", "MODEL", "BACKEND", "EVENTS", "AGE", "WHY")
_MORE_COLUMNS = ("TENANT", "TIER", "ATTEMPT", "EVENTS/S", "SILENT", "TOOK")


def filters(args: Namespace) -> dict[str, str]:
    """Those that were given."""
    return {name: given for name in FILTERS if (given := getattr(args, name)) is not None}


def run(admin: Admin, args: Namespace) -> int:
    """Print them. Raises: NotDone."""
    found = _listed(admin, args)
    if args.watch:
        _watch(admin, args, found)
    elif args.output == "json":
        screen.write(json.dumps(found, ensure_ascii=False))
    elif args.output == "name":
        for job in found["jobs"]:
            print(job["id"])
    else:
        screen.show(grid(found, is_wide=args.output == "wide", is_short=screen.is_terminal()))
        _say_what_is_missing(found, args)
    return DONE


def _listed(admin: Admin, args: Namespace) -> dict[str, Any]:
    """What the API says, as many pages of it as are wanted."""
    jobs: list[dict[str, Any]] = []
    cursor = None
    for _ in range(_LOOKS_MAX):
        query = {**filters(args), "order": args.order, "cursor": cursor}
        page = look(admin, "jobs", {**query, "limit": min(args.limit - len(jobs), _PAGE_MAX)})
        jobs += page["jobs"]
        cursor = page["next"]
        if cursor is None or len(jobs) >= args.limit:
            break
    return {**page, "jobs": jobs}


def grid(found: dict[str, Any], *, is_wide: bool, is_short: bool) -> Grid:
    """A table of jobs."""
    columns = (*_COLUMNS[:-1], *_MORE_COLUMNS, _COLUMNS[-1]) if is_wide else _COLUMNS
    is_short = is_short and not is_wide
    return Grid(columns, [_row(job, found["now_ms"], is_wide, is_short) for job in found["jobs"]])


def _row(job: dict[str, Any], now_ms: int, is_wide: bool, is_short: bool) -> Sequence[Cell | str]:
    row: list[Cell | str] = [
        short(job["id"]) if is_short else job["id"],
        styled_status(job),
        job["model"] or "-",
        job["backend"],
        str(job["event_count"]),
        age((now_ms - job["created_at_ms"]) / 1000),
    ]
    if is_wide:
        row += [job["tenant"], job["tier"], str(job["attempt"]), _number(job["events_per_s"])]
        row += ["-" if job["silent_s"] is None else age(job["silent_s"]), _took(job, now_ms)]
    return [*row, _why(job)]


def _why(job: dict[str, Any]) -> Cell:
    """What it waits for, or by what it ended."""
    if job["error"]:
        return Cell(job["error"], "red")
    return Cell(job["waits_for"] or "-", "yellow" if job["waits_for"] else "bright_black")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _took(job: dict[str, Any], now_ms: int) -> str:
    if job["started_at_ms"] is None:
        return "-"
    return age(((job["finished_at_ms"] or now_ms) - job["started_at_ms"]) / 1000)


def _say_what_is_missing(found: dict[str, Any], args: Namespace) -> None:
    if not found["jobs"]:
        screen.notice("there is no such response")
    elif found["next"] is not None:
        screen.notice(f"these are {len(found['jobs'])}; there may be more (--limit)")


# -- watching


def _watch(admin: Admin, args: Namespace, found: dict[str, Any]) -> None:
    """On a terminal a table that is kept up to date; else a line for each job that is new or has changed."""
    looks = _looks(admin, args, found)
    is_wide = args.output == "wide"
    if screen.is_terminal() and args.output in ("table", "wide"):
        with screen.kept_up_to_date(is_whole_screen=False) as draw:
            for now in looks:
                draw(grid(now, is_wide=is_wide, is_short=True))
        return
    changes = _changes(looks)
    match args.output:
        case "json":
            for _, job in changes:
                screen.write(json.dumps(job, ensure_ascii=False))
        case "name":
            for _, job in changes:
                screen.write(job["id"])
        case _:
            for now, job in changes:
                header, line = screen.aligned(grid({**now, "jobs": [job]}, is_wide=is_wide, is_short=False))
                if now is found:
                    screen.write(header)
                    found = {}
                screen.write(line)


def _looks(admin: Admin, args: Namespace, found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One after the other, also where the gateway is away for a while."""
    is_away = False
    for _ in screen.again_and_again(args.every):
        yield found
        try:
            found = _listed(admin, args)
            if is_away:
                screen.notice("the gateway is back")
            is_away = False
        except NotReached as error:
            if not is_away:
                screen.notice(f"{error}; looking again every {args.every:g} s")
            is_away = True


def _changes(looks: Iterator[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each look with the jobs that stand otherwise in it than in the last one."""
    known: dict[str, object] = {}
    for now in looks:
        stands = {job["id"]: _stands(job) for job in now["jobs"]}
        for job in reversed(now["jobs"]):
            if known.get(job["id"]) != stands[job["id"]]:
                yield now, job
        known = stands


def _stands(job: dict[str, Any]) -> object:
    return job["status"], job["waits_for"], job["attempt"], job["error"]
