"""What is measured: the gateway, and what stands beside it. Each knows how it is started on its one core."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.load import KEY, cache
from benchmarks.machine import cpu_s, descendants, rss_bytes, said
from benchmarks.processes import started, wait_for

ROOT = Path(__file__).resolve().parents[1]


class Skipped(Exception):
    """Not to be had on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a proxy is started."""

    directory: Path
    core: int
    upstream_port: int


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running one."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def pids(self) -> list[int]:
        """All its processes."""
        return descendants(self.pid)

    def cpu_s(self) -> float:
        """CPU time so far."""
        return sum(cpu_s(pid) for pid in self.pids)

    def connections(self) -> int:
        """Files that are open: a connection is one."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids)

    def rss_bytes(self) -> int:
        """Resident memory."""
        return sum(rss_bytes(pid) for pid in self.pids)


class Kind(Protocol):
    """How one is started."""

    def start(self, place: Place, log: Path) -> Any:
        """A context manager that gives a `Proxy`. Raises: Skipped."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """This project, or another checkout of it."""

    command: Sequence[str]
    settings: Mapping[str, dict[str, Any]]
    folder: Path

    @contextmanager
    def start(self, place: Place, log: Path) -> Iterator[Proxy]:
        log = self.folder / "gateway.log"
        many = 100_000
        settings: dict[str, dict[str, Any]] = {
            "server": {"port": 0, "admin_port": 0, "drain_timeout_s": 0},
            "upstream": {
                "url": f"http://127.0.0.1:{place.upstream_port}/v1",
                "api": "responses",
                "concurrency_max": 20_000,
            },
            "background": {"queue_max": many, "queue_per_tenant_max": many},
            "stream": {
                "readers_per_response_max": many,
                "readers_per_tenant_max": many,
                "readers_max": many,
            },
            "store": {"database": str(self.folder / "backburner.db")},
        }
        for section, changed in self.settings.items():
            settings.setdefault(section, {}).update(changed)
        if "url" in settings["store"]:
            del settings["store"]["database"]
        config = self.folder / "config.json"
        config.write_text(json.dumps(settings))
        command = [*self.command, "serve", "--config", str(config)]
        with started(command, core=place.core, log=log, cwd=ROOT) as process:
            yield Proxy("gateway", process, wait_for(process, log, lambda: self._port(log)), self.folder)

    @staticmethod
    def _port(log: Path) -> int | None:
        for line in log.read_bytes().splitlines():
            if b'"listening"' in line:
                return int(json.loads(line)["url"].split(":")[2].split("/")[0])
        return None


@dataclass(frozen=True, slots=True)
class Configured:
    """A proxy that takes a configuration file."""

    name: str
    program: str
    arguments: Callable[[str], list[str]]
    config: str

    @contextmanager
    def start(self, place: Place, log: Path) -> Iterator[Proxy]:
        found = shutil.which(self.program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        if found is None:
            raise Skipped(f"{self.program} is not installed")
        port = _free_port()
        config = place.directory / f"{self.name}.conf"
        words = {"PORT": str(port), "UPSTREAM": str(place.upstream_port), "DIRECTORY": str(place.directory)}
        text = self.config
        for word, value in words.items():
            text = text.replace(word, value)
        config.write_text(text)
        with started([found, *self.arguments(str(config))], core=place.core, log=log) as process:
            wait_for(process, log, lambda: _open(port))
            yield Proxy(self.name, process, port, place.directory)


@dataclass(frozen=True, slots=True)
class PlainAiohttp:
    """The proxy that everybody writes first, with aiohttp as it is."""

    @contextmanager
    def start(self, place: Place, log: Path) -> Iterator[Proxy]:
        port = _free_port()
        command = [sys.executable, "-m", "benchmarks.load.plain_proxy", str(port), str(place.upstream_port)]
        with started(command, core=place.core, log=log, cwd=ROOT) as process:
            wait_for(process, log, lambda: _open(port))
            yield Proxy("aiohttp", process, port, place.directory)


@dataclass(frozen=True, slots=True)
class LiteLLM:
    """LiteLLM's proxy (Python), in a virtualenv of its own that is made once."""

    @contextmanager
    def start(self, place: Place, log: Path) -> Iterator[Proxy]:
        folder = cache() / "litellm"
        program = folder / "bin" / "litellm"
        if not program.exists():
            _install(folder, "litellm[proxy]")
        port = _free_port()
        config = place.directory / "litellm.yaml"
        model = {
            "model": "openai/n10r0",
            "api_base": f"http://127.0.0.1:{place.upstream_port}/v1",
            "api_key": "k",
        }
        config.write_text(json.dumps({"model_list": [{"model_name": "n10r0", "litellm_params": model}]}))
        command = [str(program), "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
        environ = {
            "LITELLM_LOG": "ERROR",
            "LITELLM_MASTER_KEY": KEY,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
        }
        with started(command, core=place.core, log=log, cwd=place.directory, env=environ) as process:
            wait_for(process, log, lambda: _open(port), seconds=120)
            yield Proxy("litellm", process, port, place.directory)


def _install(folder: Path, package: str) -> None:
    print(f"Installing {package} into {folder} (once; some minutes) ...", file=sys.stderr)
    steps = (
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", package],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, timeout=1200, check=False)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            raise Skipped(f"{package} could not be installed: {done.stderr.strip()[-200:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _open(port: int) -> bool | None:
    with socket.socket() as probe:
        probe.settimeout(1)
        return True if probe.connect_ex(("127.0.0.1", port)) == 0 else None


_NGINX = """
worker_processes 1;
daemon off;
pid DIRECTORY/nginx.pid;
error_log DIRECTORY/nginx-errors.log error;
events { worker_connections 16384; }
http {
  access_log off;
  client_max_body_size 0;
  client_body_temp_path DIRECTORY/nginx-body;
  proxy_temp_path DIRECTORY/nginx-proxy;
  fastcgi_temp_path DIRECTORY/nginx-f; uwsgi_temp_path DIRECTORY/nginx-u; scgi_temp_path DIRECTORY/nginx-s;
  keepalive_requests 100000000;
  upstream model { server 127.0.0.1:UPSTREAM; keepalive 1024; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:PORT backlog=4096;
    location / {
      proxy_pass http://model;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_read_timeout 600s;
    }
  }
}
"""
_HAPROXY = """
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  http-reuse always
  option http-no-delay
frontend bench
  bind 127.0.0.1:PORT
  default_backend model
backend model
  server model 127.0.0.1:UPSTREAM
"""
OTHERS: dict[str, Kind] = {
    "nginx": Configured("nginx", "nginx", lambda config: ["-c", config, "-e", "stderr"], _NGINX),
    "haproxy": Configured("haproxy", "haproxy", lambda config: ["-f", config], _HAPROXY),
    "aiohttp": PlainAiohttp(),
    "litellm": LiteLLM(),
}
"""What stands beside the gateway, by name."""


def versions() -> dict[str, str]:
    """Of what is there."""
    litellm = cache() / "litellm" / "bin" / "python"
    code = "import importlib.metadata as m; print(m.version('litellm'))"
    found = {
        "nginx": said("/usr/sbin/nginx", "-v") or said("nginx", "-v"),
        "haproxy": said("/usr/sbin/haproxy", "-v") or said("haproxy", "-v"),
        "aiohttp": said(sys.executable, "-c", "import aiohttp; print(aiohttp.__version__)"),
        "litellm": said(str(litellm), "-c", code) if litellm.exists() else "",
    }
    return {name: version for name, version in found.items() if version}
