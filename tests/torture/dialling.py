"""Names that lead where a trial says, and what a gateway dials: in its own process, see `launch`.

Dials are counted where they happen: by an audit hook of the interpreter, which sees every `connect` of a
socket, whoever made it.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import orjson

from tests.torture.guards import replace


def note_dials(path: Path) -> None:
    """From now on, every address that is dialled stands in a file: host and port, one dial a line."""
    notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect":
            address = args[1]
            shown = address if isinstance(address, tuple) else (str(address), 0)
            os.write(notes, f"{shown[0]} {shown[1]}\n".encode())

    sys.addaudithook(watch)


def set_names(path: Path) -> None:
    """From now on, names lead where a file says: by name, lists of addresses. Each look-up gets the next
    list, the last one for good. Other names lead where they do."""
    answers = {name: _answers(lists) for name, lists in orjson.loads(path.read_bytes()).items()}
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in answers:
            return real(host, port, *args, **kwargs)
        numeric = (real(address, port, type=socket.SOCK_STREAM) for address in next(answers[host]))
        return list(chain.from_iterable(numeric))

    replace(socket, "getaddrinfo", getaddrinfo)


def _answers(lists: list[list[str]]) -> Iterator[list[str]]:
    return chain(lists, repeat(lists[-1]))


def dials(path: Path) -> list[tuple[str, int]]:
    """What was noted so far."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(host, int(port)) for host, port in (line.rsplit(" ", 1) for line in lines)]
