"""Every block of the README is pasted, in order, by somebody who has read nothing else.

Only ports are changed: those of the README may be in use where the tests run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.acceptance.harness import ROOT, within
from tests.acceptance.test_node_sdk import workplace

__all__ = ["workplace"]

README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
HASH_PLACEHOLDER = "PUT-THE-SHA256-OF-A-KEY-HERE"


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block, in the order of the page."""

    language: str
    text: str


BLOCKS = [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)]


def _only(language: str, containing: str) -> str:
    found = [b.text for b in BLOCKS if b.language == language and containing in b.text]
    assert len(found) == 1, (language, containing, len(found))
    return found[0]


def _commands(block: str) -> list[str]:
    """What a person types: lines after `$ `, with the lines that go on from them."""
    commands: list[str] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            commands.append(line[2:])
        elif commands and commands[-1].endswith("\\"):
            commands[-1] += "\n" + line
    return commands


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the blocks are pasted: a folder, with other ports than those of the page."""

    place: Path
    ports: dict[str, str]

    def moved(self, text: str) -> str:
        for port, other in self.ports.items():
            text = re.sub(rf"(?<=[:= ]){port}\b", other, text)
        return text

    @property
    def environ(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BACKBURNER_")}
        return {
            **clean,
            "PATH": f"{BIN}:{clean['PATH']}",
            "PYTHONPATH": str(ROOT),
            "BACKBURNER_SERVER__PORT": self.ports["9000"],
            "BACKBURNER_SERVER__ADMIN_PORT": self.ports["9001"],
        }

    async def run(self, *command: str, **environ: str) -> str:
        """What a command prints; it must succeed."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.place,
            env={**self.environ, **environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await within(process.communicate(), 60)
        assert process.returncode == 0, err.decode()[-3000:]
        return out.decode()

    @asynccontextmanager
    async def serving(self, *command: str, port: str, **environ: str) -> AsyncIterator[Path]:
        """A server, from its first answer on; yields the file with what it prints."""
        said = self.place / f"{Path(command[0]).name}-{port}.log"
        with said.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=self.place, env={**self.environ, **environ}, stdout=log, stderr=log
            )
        try:
            async with asyncio.timeout(20):
                while True:
                    assert process.returncode is None, said.read_text()
                    with contextlib.suppress(OSError):
                        _, writer = await asyncio.open_connection("127.0.0.1", int(self.ports[port]))
                        writer.close()
                        break
                    await asyncio.sleep(0.05)  # a server tells nobody that it listens
            yield said
        finally:
            if process.returncode is None:
                process.terminate()
            await within(process.wait())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(4)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [str(each.getsockname()[1]) for each in sockets]
    return Machine(tmp_path, dict(zip(("8000", "9000", "9001", "8080"), ports, strict=True)))


@asynccontextmanager
async def _gateway(machine: Machine) -> AsyncIterator[None]:
    """The two commands of "Run it", with the simulated model server that the page names."""
    assert "python -m demo.model_server" in README
    simulated = [sys.executable, "-m", "demo.model_server", "--port", machine.ports["8000"]]
    install, serve = _commands(_only("console", "pip install ."))
    assert install.startswith("pip install .")
    async with (
        machine.serving(*simulated, "--words-per-second", "200", port="8000"),
        machine.serving(*machine.moved(serve).split(), port="9000"),
    ):
        yield


async def test_the_python_block_runs_as_it_stands(machine: Machine) -> None:
    script = machine.moved(_only("python", "starting_after"))
    async with _gateway(machine):
        printed = await machine.run(sys.executable, "-c", script)
    assert printed.startswith("completed ")
    assert "response.completed" in printed


async def test_the_node_block_runs_as_it_stands(machine: Machine, workplace: Path) -> None:
    script = workplace / f"readme-{machine.ports['9000']}.mjs"
    script.write_text(machine.moved(_only("js", "client.responses")))
    async with _gateway(machine):
        printed = await machine.run("node", str(script))
    assert printed.startswith("completed ")
    assert "response.completed" in printed


async def test_the_curl_block_runs_as_it_stands(machine: Machine) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    script = machine.moved("\n".join(_commands(_only("console", "curl -N"))))
    async with _gateway(machine):
        printed = await machine.run("bash", "-euc", script)
    assert '"status":"completed"' in printed
    assert "Cannot cancel a completed response." in printed


async def test_the_webhook_blocks_run_as_they_stand(machine: Machine) -> None:
    [export] = _commands(_only("console", "BILLING_SECRET"))
    secret = (await machine.run("bash", "-euc", f'{export}; printf %s "$BILLING_SECRET"')).strip()
    (machine.place / "config.yaml").write_text(machine.moved(_only("yaml", "billing:")))
    receiver = machine.place / "receiver.py"
    receiver.write_text(machine.moved(_only("python", "webhooks.unwrap")))
    command = re.search(r"start the gateway with: (.*)", _only("yaml", "billing:"))
    assert command is not None
    simulated = [sys.executable, "-m", "demo.model_server", "--port", machine.ports["8000"]]
    async with (
        machine.serving(*simulated, "--words-per-second", "200", port="8000"),
        machine.serving(*command[1].split(), port="9000", BILLING_SECRET=secret),
        machine.serving(sys.executable, str(receiver), port="8080", BILLING_SECRET=secret) as said,
        aiohttp.ClientSession() as session,
    ):
        body = {"model": "demo-model", "input": "Count to 3.", "background": True}
        url = f"http://127.0.0.1:{machine.ports['9000']}/v1/responses"
        async with session.post(url, json=body) as answer:
            response_id = (await answer.json())["id"]
        async with asyncio.timeout(20):
            while f"response.completed {response_id}" not in said.read_text():
                await asyncio.sleep(0.05)  # the receiver's own output is all that there is to watch
        listed = await machine.run("backburner", "webhooks")
    assert "billing" in listed


async def test_the_key_of_a_team_is_made_by_the_two_commands(machine: Machine) -> None:
    example = _only("yaml", "static_keys")
    file = machine.place / "config.yaml"
    file.write_text(example)
    refused = await asyncio.to_thread(
        subprocess.run,
        [str(BIN / "backburner"), "check-config", "--config", str(file)],
        env=machine.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 78
    assert "tenants.keys" in refused.stderr
    commands = _commands(_only("console", "sha256sum"))
    key, digest, *_ = (await machine.run("bash", "-euc", "\n".join(commands))).split()
    assert key.startswith("bb-")
    backend_key = machine.place / "backend-key"
    backend_key.write_text("sk-backend")
    backend_key.chmod(0o600)
    file.write_text(example.replace(HASH_PLACEHOLDER, digest))
    environ = {"BACKBURNER_UPSTREAM__API_KEY_FILE": str(backend_key)}
    await machine.run("backburner", "check-config", "--config", str(file), **environ)


def test_every_block_is_pasted_by_one_of_these_tests() -> None:
    pasted = {
        ("console", "make demo"),  # the demo's own tests, and this run
        ("console", "pip install ."),
        ("console", "sha256sum"),
        ("console", "curl -N"),
        ("console", "BILLING_SECRET"),
        ("yaml", "backends:"),  # test_docs_examples.py
        ("yaml", "static_keys"),
        ("yaml", "billing:"),
        ("python", "starting_after"),
        ("python", "webhooks.unwrap"),
        ("js", "client.responses"),
    }
    for language, containing in pasted:
        _only(language, containing)
    assert len(BLOCKS) == len(pasted)
    makefile = (ROOT / "Makefile").read_text()
    targets = [line.split()[1] for line in _commands(_only("console", "make demo"))]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
