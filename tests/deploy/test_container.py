"""The image, run by a container engine: without rights, on a root that cannot be written, killed and stopped.

It is not built here, for that takes a base image. Where podman or docker has both, `make deploy` runs them:

    podman build --format docker -t backburner .
    podman build --format docker --target demo -t backburner-demo .

ENGINE names another command: ENGINE="sudo docker".
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.deploy.house import ROOT

ENGINE = shlex.split(os.environ.get("ENGINE", "")) or [shutil.which("podman") or shutil.which("docker") or ""]
LOCKED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
WAITS_S = 40.0


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _ran(*words: str, check: bool = True) -> str:
    """What the engine prints."""
    ran = subprocess.run([*ENGINE, *words], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0 or not check, f"{words}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout.strip()


@pytest.fixture(scope="module")
def images() -> None:
    if os.environ.get("DEPLOY") != "all":
        pytest.skip("takes long: `make deploy` runs it")
    if not ENGINE[0]:
        pytest.skip("no container engine: apt-get install podman")
    for image in ("backburner", "backburner-demo"):
        asked = [*ENGINE, "image", "inspect", image]
        if subprocess.run(asked, capture_output=True, check=False, timeout=60).returncode:
            pytest.skip(f"{ENGINE[0]} has no image {image}: see above how it is built")
    nothing = [*ENGINE, "run", "--rm", "--entrypoint", "/bin/true", "backburner"]
    ran = subprocess.run(nothing, capture_output=True, text=True, check=False, timeout=60)
    if ran.returncode:
        pytest.skip(f"{ENGINE[0]} runs no containers here: {ran.stderr.strip()[-200:]}")


class Container:
    """The gateway's container, with a volume of its own, and beside it the simulated model server's."""

    def __init__(self) -> None:
        self.name = f"backburner-{secrets.token_hex(4)}"
        self.model = f"{self.name}-model"
        self.port, self.admin = _free_port(), _free_port()
        # Else podman mounts a /tmp that can be written, which docker does not.
        self._flags = (*LOCKED, *(("--read-only-tmpfs=false",) if "podman" in ENGINE[-1] else ()))

    def run(self) -> None:
        _ran("network", "create", self.name)
        common = ("-d", "--network", self.name, *self._flags)
        _ran("run", *common, "--name", self.model, "backburner-demo")
        ports = ("-p", f"127.0.0.1:{self.port}:9000", "-p", f"127.0.0.1:{self.admin}:9001")
        upstream = ("-e", f"BACKBURNER_UPSTREAM__URL=http://{self.model}:8000/v1")
        log = ("-e", "BACKBURNER_LOG__FORMAT=json")
        own = ("--name", self.name, "-v", f"{self.name}:/data")
        _ran("run", *common, *own, *ports, *upstream, *log, "backburner")

    def remove(self) -> None:
        _ran("rm", "-f", self.name, self.model, check=False)
        _ran("volume", "rm", self.name, check=False)
        _ran("network", "rm", self.name, check=False)

    def python(self, code: str) -> str:
        """What a line of Python in it prints."""
        return _ran("exec", self.name, "/opt/backburner/bin/python", "-c", code)

    def asked(self, path: str, body: Any = None, *, admin: bool = False) -> Any:
        """The answer's JSON; None if there is none."""
        url = f"http://127.0.0.1:{self.admin if admin else self.port}{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except OSError:
            return None

    def waited(self, what: str, is_so: Callable[[], bool]) -> None:
        until_s = time.monotonic() + WAITS_S
        while not is_so():
            assert time.monotonic() < until_s, f"not {what}\n{_ran('logs', self.name, check=False)[-4000:]}"
            time.sleep(0.2)

    def is_ready(self) -> None:
        self.waited("ready", lambda: self.asked("/readyz", admin=True) is not None)

    def created(self) -> str:
        """The id of a background response that is being made."""
        made = self.asked("/v1/responses", {"model": "demo-model", "input": "Hello.", "background": True})
        self.waited("in progress", lambda: self.status(made["id"]) == "in_progress")
        name: str = made["id"]
        return name

    def status(self, id_: str) -> str:
        status: str = (self.asked(f"/v1/responses/{id_}") or {}).get("status", "no answer")
        return status


@pytest.fixture
def container(images: None) -> Iterator[Container]:
    one = Container()
    try:
        one.run()
        yield one
    finally:
        one.remove()


@pytest.mark.timeout(300)
def test_a_container_without_rights_serves_drains_and_is_killed_and_loses_nothing(
    container: Container,
) -> None:
    container.is_ready()
    assert container.python("import os; print(os.getuid(), os.getgid())") == "65532 65532"
    rights = re.findall(
        r"^(CapEff|NoNewPrivs):\s+(\w+)$", container.python("print(open('/proc/1/status').read())"), re.M
    )
    assert {name: int(value, 16) for name, value in rights} == {"CapEff": 0, "NoNewPrivs": 1}
    for place in ("/x", "/tmp/x", "/opt/backburner/x"):
        tried = container.python(
            f"try: open('{place}', 'w')\nexcept OSError as e: print(type(e).__name__, e.errno)"
        )
        assert tried == "OSError 30", place  # EROFS
    [check] = re.findall(
        r"^HEALTHCHECK .*?CMD (.*)$", re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()), re.M
    )
    kept = json.loads(_ran("inspect", container.name, "--format", "{{json .Config.Healthcheck}}"))
    assert kept["Test"] == ["CMD", *json.loads(check)]
    _ran("exec", container.name, *json.loads(check))

    drained = container.created()
    _ran("stop", "-t", "40", container.name)
    assert _ran("inspect", container.name, "--format", "{{.State.ExitCode}}") == "0"
    logs = subprocess.run([*ENGINE, "logs", container.name], capture_output=True, text=True, check=True)
    told = [json.loads(line)["event"] for line in (logs.stdout + logs.stderr).splitlines()]
    assert [event for event in told if event in ("draining", "stopped")] == ["draining", "stopped"]
    _ran("start", container.name)
    container.is_ready()
    assert container.status(drained) == "completed"

    killed = container.created()
    _ran("kill", "-s", "KILL", container.name)
    container.waited(
        "dead", lambda: _ran("inspect", container.name, "--format", "{{.State.Running}}") == "false"
    )
    _ran("start", container.name)
    container.is_ready()
    container.waited("completed", lambda: container.status(killed) == "completed")
    assert container.status(drained) == "completed"
