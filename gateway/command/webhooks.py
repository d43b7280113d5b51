"""`backburner webhooks`: who is told when responses end, what they did not take, and trying again."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from gateway.command import screen
from gateway.command.admin import API, Admin, ask
from gateway.command.screen import Cell, span
from gateway.command.status import DONE

RECEIVERS = ("ENDPOINT", "STATE", "WAITING", "OLDEST", "LAST FAILURE", "ADDRESS")
_FAILURES = ("RESPONSE", "ENDPOINT", "EVENT", "ATTEMPTS", "LAST FAILURE", "NEXT")


def run(admin: Admin, args: Namespace) -> int:
    """Print how receivers are, or have something done for them. Raises: NotDone."""
    if args.enable is not None:
        ask(admin, "/webhooks", {"enable": args.enable})
        print(f"{args.enable} is told again, and at once what waited for it")
        return DONE
    if args.retry is not None:
        done = json.loads(ask(admin, "/webhooks", {"retry": args.retry}))
        print(f"{args.retry}: tried again now, for {done['retried']} receiver(s)")
        for name in done["disabled"]:
            print(f"not for {name}, which is disabled: backburner webhooks --enable {name}")
        return DONE
    body = ask(admin, f"{API}webhooks")
    if args.output == "json":
        screen.write(body.decode())
        return DONE
    state = json.loads(body)
    screen.table(RECEIVERS, map(receiver, state["endpoints"]))
    if state["failing"]:
        print()
        screen.table(_FAILURES, map(_failure, state["failing"]))
    return DONE


def receiver(state: dict[str, Any]) -> Sequence[Cell | str]:
    """A row of `RECEIVERS`."""
    told = Cell("told", "green") if state["is_configured"] else Cell("not in the settings", "dim")
    if state["disabled_for_s"] is not None:
        told = Cell(f"disabled {span(state['disabled_for_s'])} ago", "red")
    elif state["down"]:
        told = Cell(f"down for {span(state['down_for_s'])}", "red")
    oldest = span(state["oldest_s"]) if state["waiting"] else "-"
    failed = "-"
    if state["failed_at_ms"] is not None:
        failed = f"{state['failure']} {span(max(0.0, time.time() - state['failed_at_ms'] / 1000))} ago"
    return state["name"], told, str(state["waiting"]), oldest, failed, state["origin"] or "-"


def _failure(event: dict[str, Any]) -> Sequence[Cell | str]:
    due = f"in {span(event['due_in_s'])}" if event["due_in_s"] > 0 else "now"
    attempts = str(event["attempts"])
    return event["response"], event["endpoint"], event["event"], attempts, event["failure"], due
