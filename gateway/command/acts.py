"""The commands that change something: `cancel`, `rerun`, `delete`, `tier`, `pause`, `resume`, `drain`.

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
        case "delete":
            return _delete(admin, args)
        case "tier":
            return _move(admin, args)
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
    done = _many(admin, args, "cancel", "cancelled", _cancelled)
    if isinstance(done, int):
        return done
    over = f"; {done['over']} had ended already" if done["over"] else ""
    _tell(args, done, f"{_responses(done['cancelled'])} cancelled{over}{_more(done)}")
    return DONE


def _rerun(admin: Admin, args: Namespace) -> int:
    done = _many(admin, args, "rerun", "run again", _run_again)
    if isinstance(done, int):
        return done
    refused = "".join(f"; {count} not: {code}" for code, count in done["refused"].items())
    _tell(args, done, f"{_responses(done['rerun'])} run again{refused}{_more(done)}")
    return NOT_DONE if done["refused"] else DONE


def _delete(admin: Admin, args: Namespace) -> int:
    done = _many(admin, args, "delete", "deleted", _deleted)
    if isinstance(done, int):
        return done
    others = f"; {done['not_deleted']} were live, or gone already" if done["not_deleted"] else ""
    _tell(args, done, f"{_responses(done['deleted'])} deleted{others}{_more(done)}")
    return DONE


def _move(admin: Admin, args: Namespace) -> int:
    done = _many(admin, args, "tier", f"moved to {args.tier}", _moved, tier=args.tier)
    if isinstance(done, int):
        return done
    others = f"; {done['started']} had been started" if done["started"] else ""
    _tell(args, done, f"{_responses(done['moved'])} moved to {args.tier}{others}{_more(done)}")
    return DONE


_Told = tuple[dict[str, Any], str]
"""What to say of a response, as JSON and as a sentence."""


def _many(
    admin: Admin,
    args: Namespace,
    what: str,
    past: str,
    told: Callable[[str, dict[str, Any]], _Told],
    **also: str,
) -> dict[str, Any] | int:
    """Do something to the responses that are named, or after a look to all that match. Returns what it came
    to, or the exit status if there is no more to say.

    Args:
        also: What else the API is told.

    Raises:
        NotDone: It was not said which, or there is nobody to ask.
    """
    may_be_all = args.command == "cancel"
    if bool(args.ids) == bool(filters(args) or (may_be_all and args.all)):
        raise NotDone(
            f"say which: ids, or filters as --state and --older{', or --all' if may_be_all else ''}"
        )
    if args.ids and not args.dry_run:
        return _each(admin, args, what, told, also)
    preview = _previewed(admin, args, what, past, also)
    if isinstance(preview, int):
        return preview
    return {"is_all": preview["is_all"], **act(admin, f"jobs/{what}", {"token": preview["token"]})}


def _more(done: dict[str, Any]) -> str:
    return "" if done["is_all"] else "; there are more: do it again, or narrow the filters"


def _previewed(
    admin: Admin, args: Namespace, what: str, past: str, also: dict[str, str]
) -> dict[str, Any] | int:
    """What a change of many would be done to, if somebody has said yes to it; else the exit status.

    Raises:
        NotDone: There is nobody to ask.
    """
    which: dict[str, Any] = (
        {"ids": [whole(admin, each) for each in args.ids]} if args.ids else {"filter": filters(args)}
    )
    preview = act(admin, f"jobs/{what}", {"dry_run": True, **also, **which})
    count = preview["count"]
    if args.dry_run or not count:
        _tell(args, preview, f"{_responses(count)} would be {past}{_some(preview)}")
        return DONE
    if not args.yes and not _is_confirmed(f"{what.capitalize()} {_responses(count)}{_some(preview)}?"):
        screen.notice(f"nothing was {past}")
        return NOT_DONE
    return preview


def _each(
    admin: Admin,
    args: Namespace,
    what: str,
    told: Callable[[str, dict[str, Any]], _Told],
    also: dict[str, str],
) -> int:
    """Do something to the responses that are named; what cannot be done to one keeps it from no other."""
    status = DONE
    for given in args.ids:
        try:
            response_id = whole(admin, given)
            done = act(admin, f"jobs/{part(response_id)}/{what}", also)
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


def _deleted(response_id: str, done: dict[str, Any]) -> _Told:
    return {"id": response_id, **done}, f"{response_id} deleted"


def _moved(response_id: str, done: dict[str, Any]) -> _Told:
    said = "moved" if done["moved"] else "had been started, or was over"
    return {"id": response_id, **done}, f"{response_id} {said}"


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
