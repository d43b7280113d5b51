"""nginx and HAProxy in front of a gateway, where the machine has them."""

from __future__ import annotations

import asyncio
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.acceptance.harness import within

_NGINX = """
daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx.log; worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {directory}/bodies; proxy_temp_path {directory}/answers;
  fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  client_header_timeout 1s; client_body_timeout 1s; keepalive_timeout 1s; lingering_close off;
  upstream gateway {{ server 127.0.0.1:{port}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{front};
    location / {{
      proxy_pass http://gateway; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_request_buffering off; proxy_next_upstream off;
    }}
  }}
}}
"""
_HAPROXY = """
global
  maxconn 256
defaults
  mode http
  timeout client 1s
  timeout server 10s
  timeout connect 5s
  timeout http-request 1s
  timeout http-keep-alive 1s
frontend clients
  bind 127.0.0.1:{front}
  default_backend gateway
backend gateway
  http-reuse always
  server gateway 127.0.0.1:{port}
"""


class Front:
    """A proxy of another make, as a process of its own, in front of a port; an async context.

    It holds connections to the gateway open, and sends the requests of different clients over one: what one
    of them smuggles in would be answered to the next.

    Attributes:
        sent: What it has sent, connection by connection.
    """

    def __init__(self, name: str, directory: Path, port: int) -> None:
        self.name = name
        self.port = _free_port()
        self.sent: list[bytearray] = []
        self._gateway_port = port
        self._directory = directory

    async def __aenter__(self) -> Self:
        self._tap = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        directory = self._directory / self.name
        directory.mkdir(mode=0o700)
        config = directory / "config"
        port = self._tap.sockets[0].getsockname()[1]
        config.write_text(FRONTS[self.name].format(directory=directory, port=port, front=self.port))
        log = f"{directory}/nginx.log"
        command = {
            "nginx": ("nginx", "-p", str(directory), "-e", log, "-c", str(config)),
            "haproxy": ("haproxy", "-db", "-q", "-f", str(config)),
        }[self.name]
        self._process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
        await within(self._listens())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        await within(self._process.wait())
        self._tap.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the front's to the gateway; what it sends is noted."""
        sent = bytearray()
        self.sent.append(sent)
        from_gateway, to_gateway = await asyncio.open_connection("127.0.0.1", self._gateway_port)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, noted: bytearray) -> None:
            with suppress(ConnectionError):
                while piece := await source.read(2**16):
                    noted += piece
                    sink.write(piece)
                    await sink.drain()
            sink.close()

        await asyncio.gather(copy(reader, to_gateway, sent), copy(from_gateway, writer, bytearray()))

    async def _listens(self) -> None:
        while True:
            assert self._process.returncode is None, f"{self.name} does not start"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


FRONTS = {"nginx": _NGINX, "haproxy": _HAPROXY}


def installed() -> list[str]:
    """Which of them the machine has."""
    return [name for name in FRONTS if shutil.which(name)]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
