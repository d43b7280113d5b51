"""The admin port of a gateway that runs, as the commands ask it. They leave its file alone: one process
writes to it.

Only the standard library is used here: `healthcheck` is started every few seconds by container runtimes.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, Request, build_opener

from gateway.command.status import NotDone
from gateway.config import ConfigError, load_server

API = "/api/v1/"
CHECK_S = 3.0
"""Timeout of a health check, in seconds."""
ANSWER_S = 15.0
"""Timeout of anything that is looked at, in seconds: the store may be slow just then."""
ACT_S = 180.0
"""Timeout of a change, in seconds: it may end ten thousand jobs."""

_WHERE = "server.admin_token_file or server.admin_token_env, in the settings that this command reads"
_WRONG_PORT = "is this the gateway's admin port (server.admin_port, --admin-port), and not the public one?"
_HINTS = {
    "invalid_admin_token": f"give the gateway's: {_WHERE} (--config)",
    "no_admin_token": f"the gateway listens on more than loopback and has no token: give it {_WHERE}",
    "host_refused": "give an address, as 127.0.0.1, by --admin-host",
    "invalid_api_key": _WRONG_PORT,
    "read_only": f"only the admin token changes anything: {_WHERE}",
}


class NotReached(NotDone):
    """No gateway answers there."""


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


def look(
    admin: Admin, path: str, query: Mapping[str, object] | None = None, *, limit_s: float = ANSWER_S
) -> dict[str, Any]:
    """What the admin API says of something; what is None of the query is left out. Raises: NotDone."""
    given = urlencode({name: value for name, value in (query or {}).items() if value is not None})
    return _object(admin, ask(admin, f"{API}{path}{f'?{given}' if given else ''}", limit_s=limit_s))


def act(admin: Admin, path: str, said: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Have something done by the admin API; what it came to. Raises: NotDone."""
    return _object(admin, ask(admin, f"{API}{path}", said or {}, limit_s=ACT_S))


def _object(admin: Admin, body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise NotDone(f"{admin.url}: what answers there is no gateway's admin port")
    return found


def part(text: str) -> str:
    """A name or an id, as a part of a path."""
    return quote(text, safe="")


def ask(admin: Admin, path: str, body: Mapping[str, Any] | None = None, *, limit_s: float = CHECK_S) -> bytes:
    """The body of its 200. Raises: NotDone."""
    with opened(admin, path, body, limit_s=limit_s) as answer:
        return answer.read()


@contextmanager
def opened(
    admin: Admin, path: str, body: Mapping[str, Any] | None = None, *, limit_s: float
) -> Iterator[HTTPResponse]:
    """Its 200, to be read. Raises: NotDone, also while it is read.

    Args:
        limit_s: Longest silence.
    """
    url = f"{admin.url}{path}"
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "X-Backburner-Action": "command"}
    if admin.token is not None:
        headers["Authorization"] = f"Bearer {admin.token}"
    try:
        request = Request(url, data, headers)  # noqa: S310  (made above)
        direct = build_opener(ProxyHandler({}))  # an http_proxy of the container is not for its own loopback
        with direct.open(request, timeout=limit_s) as answer:
            if answer.status != 200:
                raise NotDone(f"{url}: answered {answer.status}")
            yield answer
    except HTTPError as error:
        with error:
            raise _refused(url, error) from None
    except (OSError, HTTPException, ValueError) as error:
        raise NotReached(f"{url.partition('?')[0]}: {_why_not(error, limit_s)}") from None


def _why_not(error: Exception, limit_s: float) -> str:
    """The problem in words."""
    inner = error.reason if isinstance(error, URLError) else error
    match inner:
        case ConnectionRefusedError():
            return (
                "nothing listens there: does the gateway run, and is this its admin port "
                "(server.admin_port, --admin-port)?"
            )
        case TimeoutError():
            return f"no answer within {limit_s:g} s"
        case socket.gaierror():
            return "there is no address of this name (server.admin_host, --admin-host)"
        case OSError(errno=int(number)):
            return os.strerror(number)
    return str(inner)


def _refused(url: str, error: HTTPError) -> NotDone:
    """What it says: an error of the API, or of one of the other pages in a sentence."""
    try:
        said = json.loads(error.read())["error"]
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        return NotDone(f"{url}: answered {error.code}: {_WRONG_PORT}")
    if not isinstance(said, dict):
        return NotDone(f"{url}: {said}")
    code, message = said.get("code"), str(said.get("message"))
    hint = _HINTS.get(str(code))
    if error.code == 404 and code != "not_found" and not message.startswith("Response with id "):
        hint = _WRONG_PORT  # the public port hands what it does not know to a model server
    message = message.rstrip(".") if hint else message
    return NotDone(f"{message}: {hint}" if hint else message, code=code)
