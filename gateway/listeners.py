"""The ports that we listen on: taken before anything else is done, opened when somebody can answer."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import ExitStack

BACKLOG = 1024


class PortUnusable(Exception):
    """It cannot be listened on; the text says why, and which setting names it.

    Attributes:
        is_taken: Another process has it, and may leave it.
    """

    def __init__(self, message: str, *, is_taken: bool = False) -> None:
        super().__init__(message)
        self.is_taken = is_taken


async def bound(stack: ExitStack, host: str, port: int, *, name: str) -> list[socket.socket]:
    """Sockets on every address of a host, which nobody else can have from now on; they do not listen yet.

    Args:
        stack: Closes them, whatever becomes of them.
        name: Of the port among the settings, `port` or `admin_port`.

    Raises:
        PortUnusable: With what to do about it.
    """
    loop = asyncio.get_running_loop()
    host_name = "host" if name == "port" else "admin_host"
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise PortUnusable(f"server.{host_name} ({host}) is no address, and no name of one") from None
    sockets = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        opened = stack.enter_context(socket.socket(family, kind, protocol))
        # Connections of the last process, which linger, do not count.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            opened.bind(address)
        except OSError as error:
            raise _unusable(error, address[0], port, name, host_name) from None
        sockets.append(opened)
    return sockets


def _unusable(error: OSError, address: object, port: int, name: str, host_name: str) -> PortUnusable:
    flag = f"--{name.replace('_', '-')}"
    match error.errno:
        case errno.EADDRINUSE:
            message = f"port {port} of {address} is taken: give another one by {flag} (server.{name}), or 0"
            return PortUnusable(message, is_taken=True)
        case errno.EACCES:
            message = f"port {port} is for root: give one from 1024 on by {flag} (server.{name})"
        case errno.EADDRNOTAVAIL:
            message = f"server.{host_name} ({address}) is no address of this machine"
        case _:
            why = os.strerror(error.errno) if error.errno is not None else str(error)
            message = f"port {port} of {address} cannot be listened on: {why}"
    return PortUnusable(message)
