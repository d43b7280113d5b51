"""README, quickstart and the pages that go on from it are pasted by somebody who has read nothing else.

Only ports are changed: those of the pages may be in use where the tests run. Which blocks these are:
`test_docs_examples.py`.
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
from tests.support.pages import only

__all__ = ["workplace"]

BIN = Path(sys.executable).parent
QUICKSTART, SDKS, WEBHOOKS = "docs/quickstart.md", "docs/clients/openai.md", "docs/webhooks.md"
HASH_PLACEHOLDER = "PUT-THE-SHA256-OF-A-KEY-HERE"


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
    """The two commands of "Run it", with the simulated model server that the pages name."""
    assert "python -m demo.model_server" in (ROOT / "README.md").read_text()
    simulated = [sys.executable, "-m", "demo.model_server", "--port", machine.ports["8000"]]
    [(install, serve)] = {
        tuple(only(page, "console", "pip install .").commands) for page in ("README.md", QUICKSTART)
    }
    assert install == "pip install ."
    async with (
        machine.serving(*simulated, "--words-per-second", "200", port="8000"),
        machine.serving(*machine.moved(serve).split(), port="9000"),
    ):
        yield


@pytest.mark.parametrize("page", ["README.md", QUICKSTART])
async def test_the_python_that_polls_runs_as_it_stands(machine: Machine, page: str) -> None:
    script = machine.moved(only(page, "python").text)
    async with _gateway(machine):
        assert (await machine.run(sys.executable, "-c", script)).startswith("completed ")


async def test_the_python_that_streams_runs_as_it_stands(machine: Machine) -> None:
    script = machine.moved(only(SDKS, "python").text)
    async with _gateway(machine):
        assert "response.completed" in await machine.run(sys.executable, "-c", script)


@pytest.mark.parametrize(("page", "printed"), [(QUICKSTART, "completed "), (SDKS, "response.completed")])
async def test_the_node_blocks_run_as_they_stand(
    machine: Machine, workplace: Path, page: str, printed: str
) -> None:
    script = workplace / f"page-{machine.ports['9000']}.mjs"
    script.write_text(machine.moved(only(page, "js").text))
    async with _gateway(machine):
        assert printed in await machine.run("node", str(script))


@pytest.mark.parametrize(
    ("page", "printed"), [(QUICKSTART, '"status":"completed"'), (SDKS, "Cannot cancel a completed response.")]
)
async def test_the_curl_blocks_run_as_they_stand(machine: Machine, page: str, printed: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    script = machine.moved("\n".join(only(page, "console", "curl").commands))
    async with _gateway(machine):
        assert printed in await machine.run("bash", "-euc", script)


async def test_the_webhook_blocks_run_as_they_stand(machine: Machine) -> None:
    [export] = only(WEBHOOKS, "console").commands
    secret = (await machine.run("bash", "-euc", f'{export}; printf %s "$BILLING_SECRET"')).strip()
    settings = only(WEBHOOKS, "yaml").text
    (machine.place / "config.yaml").write_text(machine.moved(settings))
    receiver = machine.place / "receiver.py"
    receiver.write_text(machine.moved(only(WEBHOOKS, "python").text))
    command = re.search(r"start the gateway with: (.*)", settings)
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
    example = only("docs/security.md", "yaml").text
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
    commands = only("docs/security.md", "console").commands
    key, digest, *_ = (await machine.run("bash", "-euc", "\n".join(commands))).split()
    assert key.startswith("bb-")
    backend_key = machine.place / "backend-key"
    backend_key.write_text("sk-backend")
    backend_key.chmod(0o600)
    file.write_text(example.replace(HASH_PLACEHOLDER, digest))
    environ = {"BACKBURNER_UPSTREAM__API_KEY_FILE": str(backend_key)}
    await machine.run("backburner", "check-config", "--config", str(file), **environ)
