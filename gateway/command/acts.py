"""The commands that change something: `cancel`, `rerun`, `pause`, `resume`, `drain`.

Each is done by the admin API, which leaves a line in the gateway's log.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from gateway.command import screen
from gateway.command.admin import Admin, NotReached, act, look, part
from gateway.command.ids import whole
from gateway.command.jobs import filters
from gateway.command.status import DONE, NOT_DONE, NotDone

_DRAIN_LOOK_S = 0.5
_DRAIN_S_MAX = 3_600 + 60.0
"""`server.drain_timeout_s` may be an hour."""


def run(admin: Admin, args: Namespace) -> int:
    """The one that was named. Raises: NotDone."""
    match args.command:
        case "cancel":
            return _cancel(admin, args)
        case "rerun":
            return _rerun(admin, args)
        case "drain":
            return _drain(admin, args)
        case "pause" | "resume" as what:
            done = act(admin, f"backends/{part(args.backend)}/{what}")
            held = (
                "starts no more responses; those that run go on"
                if done["paused"]
                else "starts responses again"
            )
            _tell(args, done, f"{args.backend} {held}")
            return DONE
    raise AssertionError(args.command)


def _tell(args: Namespace, done: dict[str, Any], sentence: str) -> None:
    screen.write(json.dumps(done, ensure_ascii=False) if args.output == "json" else sentence)


# -- responses


def _cancel(admin: Admin, args: Namespace) -> int:
    wanted = filters(args)
    if bool(args.ids) == bool(wanted or args.all):
        raise NotDone("say which: ids, or filters as --model and --older, or --all")
    if args.ids and not args.dry_run:
        return _each(admin, args, "cancel", _cancelled)
    preview = _previewed(admin, args, "cancel", "cancelled")
    if isinstance(preview, int):
        return preview
    done = act(admin, "jobs/cancel", {"token": preview["token"]})
    over = f"; {done['over']} had ended already" if done["over"] else ""
    more = "" if preview["is_all"] else "; there are more: cancel again"
    _tell(args, done, f"{_responses(done['cancelled'])} cancelled{over}{more}")
    return DONE


def _previewed(admin: Admin, args: Namespace, what: str, past: str) -> dict[str, Any] | int:
    """What a change of many would be done to, if somebody has said yes to it; else the exit status.

    Raises:
        NotDone: There is nobody to ask.
    """
    which: dict[str, Any] = (
        {"ids": [whole(admin, each) for each in args.ids]} if args.ids else {"filter": filters(args)}
    )
    preview = act(admin, f"jobs/{what}", {"dry_run": True, **which})
    count = preview["count"]
    if args.dry_run or not count:
        _tell(args, preview, f"{_responses(count)} would be {past}{_some(preview)}")
        return DONE
    if not args.yes and not _is_confirmed(f"{what.capitalize()} {_responses(count)}{_some(preview)}?"):
        screen.notice(f"nothing was {past}")
        return NOT_DONE
    return preview


_Told = tuple[dict[str, Any], str]
"""What to say of a response, as JSON and as a sentence."""


def _each(admin: Admin, args: Namespace, what: str, told: Callable[[str, dict[str, Any]], _Told]) -> int:
    """Do something to the responses that are named; what cannot be done to one keeps it from no other."""
    status = DONE
    for given in args.ids:
        try:
            response_id = whole(admin, given)
            done = act(admin, f"jobs/{part(response_id)}/{what}")
        except NotReached:
            raise
        except NotDone as error:
            screen.notice(f"{given}: {error}")
            status = NOT_DONE
            continue
        _tell(args, *told(response_id, done))
    return status


def _cancelled(response_id: str, done: dict[str, Any]) -> _Told:
    said = "cancelled" if done["cancelled"] else "had ended already"
    return {"id": response_id, **done}, f"{response_id} {said}"


def _run_again(response_id: str, done: dict[str, Any]) -> _Told:
    return {"of": response_id, **done}, f"{response_id} runs again as {done['id']}"


def _responses(count: int) -> str:
    return "1 response" if count == 1 else f"{count} responses"


def _some(preview: dict[str, Any]) -> str:
    first = preview["first"]
    return f" ({', '.join(first)}{', …' if preview['count'] > len(first) else ''})" if first else ""


def _is_confirmed(question: str) -> bool:
    """Whether somebody says yes. Raises: NotDone, if there is nobody to ask."""
    if not sys.stdin.isatty():
        raise NotDone(f"{question} There is nobody to ask: --yes confirms it, --dry-run only shows it.")
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        return False


def _rerun(admin: Admin, args: Namespace) -> int:
    wanted = filters(args)
    if bool(args.ids) == bool(wanted):
        raise NotDone("say which: ids, or filters as --state and --newer")
    if args.ids and not args.dry_run:
        return _each(admin, args, "rerun", _run_again)
    preview = _previewed(admin, args, "rerun", "run again")
    if isinstance(preview, int):
        return preview
    done = act(admin, "jobs/rerun", {"token": preview["token"]})
    refused = "".join(f"; {count} not: {code}" for code, count in done["refused"].items())
    more = "" if preview["is_all"] else "; there are more: narrow the filters"
    _tell(args, done, f"{_responses(done['rerun'])} run again{refused}{more}")
    return NOT_DONE if done["refused"] else DONE


# -- the gateway


def _drain(admin: Admin, args: Namespace) -> int:
    """End it in good order; with `--wait` come back when it is gone. Raises: NotDone."""
    done = act(admin, "drain")
    _tell(args, done, "the gateway takes no more responses, and stops when those that run have ended")
    if not args.wait:
        return DONE
    until_s = time.monotonic() + _DRAIN_S_MAX
    known = None
    while time.monotonic() < until_s:
        try:
            now = look(admin, "overview")["running"]
        except NotReached:
            screen.notice("it has stopped")
            return DONE
        if now != known:
            screen.notice(f"{_responses(now)} still running")
        known = now
        time.sleep(_DRAIN_LOOK_S)
    raise NotDone("it has not stopped")
