"""The snippets for TLS in front: a real proxy with them lets a stream through as it is sent."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import trustme

from tests.acceptance.harness import Gateway, frames, within
from tests.acceptance.replay import ReplayServer, replay
from tests.deploy.house import DEPLOY

HOST = "llm.example.com"
Configure = Callable[[Path, int, str, Path, Path], list[str]]


def _nginx(place: Path, port: int, gateway: str, certificate: Path, key: Path) -> list[str]:
    """The command that runs nginx with our snippet: only names, ports and paths are others."""
    text = (DEPLOY / "nginx" / "backburner.conf").read_text()
    for old, new in {
        "listen 443": f"listen 127.0.0.1:{port}",
        "127.0.0.1:9000": gateway,
        f"/etc/nginx/tls/{HOST}.pem": str(certificate),
        f"/etc/nginx/tls/{HOST}.key": str(key),
    }.items():
        assert old in text
        text = text.replace(old, new)
    file = place / "nginx.conf"
    logs = f"error_log {place}/error.log; pid {place}/pid;"
    paths = " ".join(f"{name}_temp_path {place}/{name};" for name in _NGINX_TEMPORARY)
    file.write_text(f"{logs} events {{}} http {{ access_log off; {paths}\n{text}\n}}")
    return ["nginx", "-p", str(place), "-c", str(file), "-g", "daemon off;"]


_NGINX_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def _caddy(place: Path, port: int, gateway: str, certificate: Path, key: Path) -> list[str]:
    text = (DEPLOY / "caddy" / "Caddyfile").read_text()
    site = f"https://{HOST}:{port} {{\n\ttls {certificate} {key}"
    text = text.replace(f"{HOST} {{", site, 1).replace("127.0.0.1:9000", gateway)
    file = place / "Caddyfile"
    file.write_text(f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{text}")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)]


@asynccontextmanager
async def _proxy(
    configure: Configure, gateway: Gateway, place: Path
) -> AsyncIterator[tuple[str, ssl.SSLContext]]:
    authority = trustme.CA()
    issued = authority.issue_cert(HOST)
    certificate, key = place / "cert.pem", place / "key.pem"
    issued.private_key_pem.write_to_path(key)
    for part in issued.cert_chain_pems:
        part.write_to_path(certificate, append=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = configure(place, port, urlsplit(gateway.url).netloc, certificate, key)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)

    async def answers() -> None:
        while True:
            assert process.returncode is None, "the proxy ended"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return writer.close()

    try:
        await within(answers())
        yield f"https://127.0.0.1:{port}", trusted
    finally:
        process.terminate()
        await within(process.wait())


@pytest.mark.parametrize(("name", "configure"), [("nginx", _nginx), ("caddy", _caddy)])
async def test_a_stream_comes_through_event_by_event(
    name: str, configure: Configure, gateway: Gateway, replay_server: ReplayServer, tmp_path: Path
) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"no {name} on this machine")
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    ask = {"model": "tiny", "input": "A", "background": True, "stream": True}
    async with _proxy(configure, gateway, tmp_path) as (url, trusted), aiohttp.ClientSession() as session:
        request = session.post(
            f"{url}/v1/responses", json=ask, headers={"Host": HOST}, ssl=trusted, server_hostname=HOST
        )
        async with request as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            first = await within(answer.content.readuntil(b"\n\n"))
            await within(held.held.wait())  # the model server says no more until it is released
            second = await within(answer.content.readuntil(b"\n\n"))
            held.release.set()
            rest = await within(answer.content.read())
    assert b"response.created" in first
    assert len(frames(first + second + rest)) > 6
    assert re.search(rb"event: response.completed", rest)
