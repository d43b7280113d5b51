"""The commands that ask a running gateway, on its admin port: `healthcheck` and `webhooks`.

They leave its file alone: one process writes to it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from gateway.config import ServerSettings

TIMEOUT_S = 3


class _Refused(Exception):
    """It did not do what it was asked; the text says why."""


def admin_url(host: str | None, port: str | None) -> str:
    """Where the admin port is: as a flag or the environment says, or where it is by default."""
    fields = ServerSettings.model_fields
    host = host or os.environ.get("BACKBURNER_SERVER__ADMIN_HOST") or fields["admin_host"].default
    port = port or os.environ.get("BACKBURNER_SERVER__ADMIN_PORT") or fields["admin_port"].default
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(host), str(host))  # noqa: S104  (dialled, not bound)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def healthcheck(admin: str) -> int:
    """The exit status: 0 if it says that it is alive."""
    try:
        _ask(f"{admin}/healthz")
    except _Refused as refusal:
        print(f"backburner: {refusal}", file=sys.stderr)
        return 1
    return 0


def webhooks(admin: str, *, enable: str | None, retry: str | None) -> int:
    """Print how receivers are, or have something done for them. The exit status: 0 if that went well."""
    url = f"{admin}/webhooks"
    try:
        if enable is not None:
            _ask(url, {"enable": enable})
            print(f"{enable} is told again, and at once what waited for it")
        elif retry is not None:
            done = json.loads(_ask(url, {"retry": retry}))
            print(f"{retry}: tried again now, for {done['retried']} receiver(s)")
        else:
            state = json.loads(_ask(url))
            _print(("ENDPOINT", "STATE", "WAITING", "OLDEST", "ADDRESS"), map(_receiver, state["endpoints"]))
            if state["failing"]:
                print()
                columns = ("RESPONSE", "ENDPOINT", "EVENT", "ATTEMPTS", "LAST FAILURE", "NEXT")
                _print(columns, map(_failure, state["failing"]))
    except _Refused as refusal:
        print(f"backburner: {refusal}", file=sys.stderr)
        return 1
    return 0


def _ask(url: str, body: dict[str, str] | None = None) -> bytes:
    """The body of its 200. Raises: _Refused."""
    data = None if body is None else json.dumps(body).encode()
    try:
        request = Request(url, data, {"Content-Type": "application/json"})  # noqa: S310  (made above)
        direct = build_opener(ProxyHandler({}))  # an http_proxy of the container is not for its own loopback
        with direct.open(request, timeout=TIMEOUT_S) as answer:
            if answer.status == 200:
                return bytes(answer.read())
            reason = f"answered {answer.status}"
    except HTTPError as error:
        reason = _reason(error)
    except (OSError, HTTPException, ValueError) as error:
        reason = str(error)
    raise _Refused(f"{url}: {reason}")


def _reason(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"])
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        return f"answered {error.code}"


def _receiver(state: dict[str, Any]) -> Sequence[str]:
    told = "told" if state["is_configured"] else "not in the settings"
    if state["disabled_for_s"] is not None:
        told = f"disabled {_span(state['disabled_for_s'])} ago"
    oldest = _span(state["oldest_s"]) if state["waiting"] else "-"
    return state["name"], told, str(state["waiting"]), oldest, state["origin"] or "-"


def _failure(event: dict[str, Any]) -> Sequence[str]:
    due = f"in {_span(event['due_in_s'])}" if event["due_in_s"] > 0 else "now"
    attempts = str(event["attempts"])
    return event["response"], event["endpoint"], event["event"], attempts, event["failure"], due


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _print(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = [columns, *rows]
    widths = [max(len(row[number]) for row in table) for number in range(len(columns))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
