"""The commands that ask a running gateway, on its admin port: `healthcheck` and `webhooks`.

They leave its file alone: one process writes to it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from gateway.config import ConfigError, load_server

TIMEOUT_S = 3


class _Refused(Exception):
    """It did not do what it was asked; the text says why."""


@dataclass(frozen=True, slots=True)
class Admin:
    """The admin port of a gateway that runs.

    Attributes:
        token: What it asks for before it shows addresses or changes anything.
    """

    url: str
    token: str | None = field(default=None, repr=False)


def admin_of(
    host: str | None, port: str | None, *, environ: Mapping[str, str], file: Path | None, with_token: bool
) -> Admin:
    """Where it is, as the flags say, else the settings. Raises: ConfigError."""
    names = ["server.admin_host", "server.admin_port"]
    names += ["server.admin_token_file", "server.admin_token_env"] if with_token else []
    server = load_server(names, environ=environ, file=file)
    if port is None and not server.admin_port:
        raise ConfigError(
            ["server.admin_port is 0: give the port that the gateway has taken by --admin-port"]
        )
    host = host or server.admin_host
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (dialled, not bound)
    place = f"[{host}]" if ":" in host else host
    return Admin(f"http://{place}:{port or server.admin_port}", server.read_admin_token())


def healthcheck(admin: Admin) -> int:
    """The exit status: 0 if it says that it is alive."""
    try:
        _ask(Admin(admin.url), "/healthz")
    except _Refused as refusal:
        print(f"backburner: {refusal}", file=sys.stderr)
        return 1
    return 0


def webhooks(admin: Admin, *, enable: str | None, retry: str | None) -> int:
    """Print how receivers are, or have something done for them. The exit status: 0 if that went well."""
    try:
        if enable is not None:
            _ask(admin, "/webhooks", {"enable": enable})
            print(f"{enable} is told again, and at once what waited for it")
        elif retry is not None:
            done = json.loads(_ask(admin, "/webhooks", {"retry": retry}))
            print(f"{retry}: tried again now, for {done['retried']} receiver(s)")
            for name in done["disabled"]:
                print(f"not for {name}, which is disabled: backburner webhooks --enable {name}")
        else:
            state = json.loads(_ask(admin, "/webhooks"))
            _print(("ENDPOINT", "STATE", "WAITING", "OLDEST", "ADDRESS"), map(_receiver, state["endpoints"]))
            if state["failing"]:
                print()
                columns = ("RESPONSE", "ENDPOINT", "EVENT", "ATTEMPTS", "LAST FAILURE", "NEXT")
                _print(columns, map(_failure, state["failing"]))
    except _Refused as refusal:
        print(f"backburner: {refusal}", file=sys.stderr)
        return 1
    return 0


def _ask(admin: Admin, path: str, body: dict[str, str] | None = None) -> bytes:
    """The body of its 200. Raises: _Refused."""
    url = f"{admin.url}{path}"
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    if admin.token is not None:
        headers["Authorization"] = f"Bearer {admin.token}"
    try:
        request = Request(url, data, headers)  # noqa: S310  (made above)
        direct = build_opener(ProxyHandler({}))  # an http_proxy of the container is not for its own loopback
        with direct.open(request, timeout=TIMEOUT_S) as answer:
            if answer.status == 200:
                return bytes(answer.read())
            reason = f"answered {answer.status}"
    except HTTPError as error:
        reason = _reason(error)
    except (OSError, HTTPException, ValueError) as error:
        reason = _why_not(error)
    raise _Refused(f"{url}: {reason}")


def _why_not(error: Exception) -> str:
    """The problem in words."""
    inner = error.reason if isinstance(error, URLError) else error
    match inner:
        case ConnectionRefusedError():
            return (
                "nothing listens there: does the gateway run, and is this its admin port "
                "(server.admin_port, --admin-port)?"
            )
        case TimeoutError():
            return f"no answer within {TIMEOUT_S} s"
        case socket.gaierror():
            return "there is no address of this name (server.admin_host, --admin-host)"
        case OSError(errno=int(number)):
            return os.strerror(number)
    return str(inner)


def _reason(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"])
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        return f"answered {error.code}"


def _receiver(state: dict[str, Any]) -> Sequence[str]:
    told = "told" if state["is_configured"] else "not in the settings"
    if state["disabled_for_s"] is not None:
        told = f"disabled {_span(state['disabled_for_s'])} ago"
    elif state["down"]:
        told = f"down for {_span(state['down_for_s'])}"
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
